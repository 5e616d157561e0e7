"""What a model costs: per hour, per token, per month of traffic."""
