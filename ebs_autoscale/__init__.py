"""Grow a mounted filesystem on EC2 before it is full."""

__version__ = "0.1.0"

__all__ = ["__version__"]
