"""LU, Cholesky and QR on all ranks, and solving with their factors."""
