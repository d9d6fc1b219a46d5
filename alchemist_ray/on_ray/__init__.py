"""Alchemist in Ray: the actor that holds a session, and tasks as remote functions."""
