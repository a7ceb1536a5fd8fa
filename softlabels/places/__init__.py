"""From the name of a dump to its folder: a path, an address of an object store, the Hub, or a local
copy."""
