"""One rank of a worker group: its commands, its matrices, its output."""
