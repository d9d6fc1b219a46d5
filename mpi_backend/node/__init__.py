"""Start the ranks of a worker group on a host."""
