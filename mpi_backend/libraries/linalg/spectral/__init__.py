"""Eigenvalues, singular values, and functions of matrices."""
