"""EC2 without boto3: requests, responses, error codes, volume types, permissions, identity."""
