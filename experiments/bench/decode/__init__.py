"""The decoding benchmark: whole engines on searches, samples and few-shot prompts."""
