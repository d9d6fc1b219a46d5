"""Servers whose nodes a cluster's own tools start: Slurm, and ssh."""
