"""From what `--data` names to a table: files, folders, `datasets` and the Hub, read in place."""
