"""Tables and plots over finished runs."""
