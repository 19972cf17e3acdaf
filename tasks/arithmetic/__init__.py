"""Game of 24 and Countdown: reach a number with each of the given numbers."""
