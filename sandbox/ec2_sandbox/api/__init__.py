"""The EC2 actions: each checks a request, then changes or describes the world."""
