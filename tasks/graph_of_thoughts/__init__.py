"""Tasks that are split into parts and merged: sorting and set intersection."""
