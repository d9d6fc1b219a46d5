"""LU, Cholesky and QR on all ranks, and what is solved with them."""
