"""Published facts with dates and sources, and the user's own prices.

load.py         reads a table as a data frame
rows.py         the columns of each table, with their types and ranges
check.py        checks rows, dates, sources, references and arithmetic
prices.py       what devices cost per hour
terms.py        what licences and API terms say of training on a model's output
api_prices.py   what APIs charge per token
"""
