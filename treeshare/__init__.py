"""Reasoning search over language models that owns its KV cache."""
