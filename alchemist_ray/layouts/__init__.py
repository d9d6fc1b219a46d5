"""Which rank holds which element of a matrix: index arithmetic and copies in memory. NumPy only."""
