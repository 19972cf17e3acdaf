"""Loggers, which send the results of a run to other places than its directory."""
