"""Sampling of next tokens: temperature, top-k, top-p, min-p, with a seed for every sequence."""
