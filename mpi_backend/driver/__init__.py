"""The driver: admits clients, owns the worker slots, starts and ends worker groups."""
