"""Tasks: problems, prompts, parsers and verifiers."""
