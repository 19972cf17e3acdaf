"""Sampling of next tokens: temperature, top-k, top-p, with a seed for every sequence."""
