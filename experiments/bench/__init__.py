"""Benchmarks: attention, decoding, searching and speculation."""
