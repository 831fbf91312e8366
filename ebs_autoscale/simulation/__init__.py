"""What the policy would do, played through without a filesystem."""
