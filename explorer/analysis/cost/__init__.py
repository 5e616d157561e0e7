"""What a model costs: per hour, per token, per month of traffic.

breakeven.py     at what traffic a rented device beats an API
cost_headline.py what the traffic costs in words, and with which model
economics.py     all cost figures of a study's runs for one traffic
fleet.py         how many devices a traffic needs, and their cost
payback.py       what a distillation costs and when it has paid for itself
quantity.py      a number with its interval, or what is missing to know it
serving_cost.py  the cost of a request and its split into prefill and decode
unit_cost.py     the cost per million output tokens
"""
