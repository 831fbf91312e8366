"""An evaluator of IAM policies; it knows nothing of EC2."""
