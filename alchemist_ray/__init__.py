"""Alchemist for Ray."""
