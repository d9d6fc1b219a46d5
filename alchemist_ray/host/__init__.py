"""Facts about this machine, and its temporary directories."""
