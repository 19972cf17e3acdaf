"""Reward models: the engine that batches their prompts, and Hugging Face's classifiers."""
