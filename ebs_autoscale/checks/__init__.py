"""`check`: look at everything without changing anything."""
