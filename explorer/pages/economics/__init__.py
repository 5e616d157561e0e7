"""The Economics page."""
