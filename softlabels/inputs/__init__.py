"""Where rows come from: sources, their columns and hashes, preprocessing, views."""
