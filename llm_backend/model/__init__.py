"""Models: loading, tokenizer, network, attention backends, and the compatibility check."""
