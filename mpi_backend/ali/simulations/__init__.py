"""Simulations as tasks: one at a time, and many as a batch over teams of ranks."""
