"""The machine below: threads, devices, memory, files, a cache; how a verb says what it does."""
