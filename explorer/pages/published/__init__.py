"""The Published page: what others report that their students keep.

published.py  the page
parts.py      the evidence for a point, and the four claims
"""
