"""Engines that serve generation and scoring requests, and the parts of the tree engine."""
