"""The command `treeshare-check-model`."""
