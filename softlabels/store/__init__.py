"""The format on disk: plan, shards, commit records, manifest. See docs/format.md."""
