"""Search trees as one self-contained HTML page."""
