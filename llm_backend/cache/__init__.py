"""The KV cache: the pool of slots and the radix tree of prompts that owns them."""
