"""Libraries written in C: their descriptions, values and calls."""
