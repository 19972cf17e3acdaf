"""Language models: loading, tokenizers, attention backends and fused layers."""
