"""Distributed matrices as the ranks of a group see them."""
