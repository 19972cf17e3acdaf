"""Sampling of the next tokens, and the update of the rows between two decode steps."""
