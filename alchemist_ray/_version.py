"""The version of the package; it stands here only."""

__version__ = "0.1.0"
