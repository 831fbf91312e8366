"""A small EC2 and instance metadata service that really attaches block devices."""
