"""What `init` sets up on a host, and `uninstall` removes."""
