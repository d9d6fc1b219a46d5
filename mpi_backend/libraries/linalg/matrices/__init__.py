"""Arithmetic, products, norms, and the same elements in another layout."""
