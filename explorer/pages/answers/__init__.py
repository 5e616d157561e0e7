"""The Answers page: which documents a student lost and gained.

answers.py         the page
paired_answers.py  the answers of two runs to the same documents
"""
