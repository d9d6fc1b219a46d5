"""The libraries that the package brings."""
