"""Evaluators, which value nodes by prompts, log-probabilities or reward models."""
