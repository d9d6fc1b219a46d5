"""How the ranks of a worker group are started on a host."""
