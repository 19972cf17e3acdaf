"""Speculative decoding: drafters, and the acceptance of their tokens."""
