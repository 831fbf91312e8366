"""Every judgement, no effect: when space is short, how much to add, how long to wait."""
