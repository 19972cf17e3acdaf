"""Search policies: what to expand next, level by level, by priority or one chain at a time."""
