"""The memory in which a worker keeps its matrices."""
