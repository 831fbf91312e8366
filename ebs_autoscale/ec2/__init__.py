"""EC2 without boto3: requests, responses, error codes, permissions, identity, volume types.

The submodules are imported by name and none of them here, so that a reader of one table does
not load an HTTP client.
"""

__all__ = ["errors", "iam", "imds", "requests", "responses", "volume_types"]
