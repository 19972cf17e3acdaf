"""Fused layers of a decoder for small batches."""
