"""Matrices that live with the workers: handles, writers, files."""
