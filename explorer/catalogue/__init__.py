"""Dated facts with their sources, and the user's own corrections to them.

load.py        the tables as frames, each read once
rows.py        what a row of each table may hold
check.py       whether every row keeps what the catalogue promises
prices.py      what devices cost per hour: the price book and the user's prices
api_prices.py  what APIs charge per token
"""
