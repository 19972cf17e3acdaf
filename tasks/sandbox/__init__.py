"""A child process for scorers that are not ours, without files, network or environment."""
