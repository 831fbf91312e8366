"""The simulated account and the passing of time in it."""
