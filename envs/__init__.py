"""Gymnasium environments over MPI simulations."""
