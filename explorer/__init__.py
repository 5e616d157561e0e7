"""Distill Explorer: how small can this model get, and what do we save?"""

__version__ = "0.1.0"
