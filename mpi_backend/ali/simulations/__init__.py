"""The tasks of simulations: one simulation at a time, and many as a batch over teams of ranks."""
