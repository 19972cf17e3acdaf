"""Blocksworld: plans that stack blocks into a goal."""
