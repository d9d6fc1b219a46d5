"""The libraries that are shipped with the package."""
