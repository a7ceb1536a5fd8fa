"""From a name to a folder: a path, an address of a store, a dump on the Hub, and copies here."""
