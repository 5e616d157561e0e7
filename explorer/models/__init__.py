"""Naming, loading and fingerprinting models."""
