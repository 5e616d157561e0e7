"""What is published about distilled models.

check_claims.py         four widespread claims, each with a verdict and its evidence
published_retention.py  what published students keep of the models they are compared with
"""
