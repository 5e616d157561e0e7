"""Retention, intervals, paired tests: how sure a difference is."""
