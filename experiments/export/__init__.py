"""Training data made of finished runs."""
