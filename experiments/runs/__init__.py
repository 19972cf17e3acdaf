"""One run: its configuration, its loop over puzzles, its loggers and its failures."""
