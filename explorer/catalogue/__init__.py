"""Dated facts with their sources, and the user's own corrections to them."""
