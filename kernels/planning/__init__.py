"""Plans of tree attention: forests, tiles, splits and work lists, on the host and on the device."""
