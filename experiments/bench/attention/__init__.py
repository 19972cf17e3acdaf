"""The attention benchmark: one attention call on recorded and synthetic trees."""
