"""Engines: the tree engine, Hugging Face's `generate`, scripted and recorded replies."""
