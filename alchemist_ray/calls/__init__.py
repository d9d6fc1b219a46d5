"""Calls of tasks with arrays, for any framework: how each array is sent, and which session runs the task."""
