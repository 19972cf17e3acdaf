"""A run's directory: rows, digests, records and the summary."""
