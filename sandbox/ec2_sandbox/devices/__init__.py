"""Real block devices of this host, and the private mount namespace in which to make them."""
