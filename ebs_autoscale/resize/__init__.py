"""How one filesystem gets larger: look, decide, and carry out what is missing."""
