"""What a sweep trains, and what comes of it: settings, statistics over seeds, a table, a plot."""
