"""Runs, tasks and differences as tables."""
