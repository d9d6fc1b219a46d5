"""MPI simulations, each an ALI library."""
