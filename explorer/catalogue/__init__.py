"""Dated facts with their sources, and the user's own corrections to them.

load.py         reads a table of the catalogue
rows.py         what a row of each table may hold
check.py        whether the tables hold what they promise
prices.py       what devices cost per hour
api_prices.py   what APIs charge per token
"""
