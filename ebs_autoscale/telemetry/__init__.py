"""What the program tells: events, conditions, log lines and the status file."""
