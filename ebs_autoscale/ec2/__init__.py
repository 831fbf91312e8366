"""EC2 apart from its calls: requests, responses, error codes, permissions, identity, volume types.

The submodules are imported by name and none of them here, so that a reader of one table does
not load an HTTP client.
"""

__all__ = ["errors", "iam", "imds", "requests", "responses", "role", "volume_types"]
