"""What a model can do, how fast it is and how much memory it takes."""
