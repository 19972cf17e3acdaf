"""The soak test: many uneven requests, compared with the `sequence` attention."""
