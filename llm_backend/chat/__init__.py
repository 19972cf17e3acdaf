"""Conversations to tokens, in the format of a chat model."""
