"""What clients talk to: EC2, instance metadata and the control endpoint, on one port."""
