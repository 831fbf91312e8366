"""Sizes and counts as people read them."""

MIB = 1024**2
GIB = 1024**3
_UNITS = (("GiB", GIB), ("MiB", MIB), ("KiB", 1024))


def format_size(size_bytes: float) -> str:
    """A size with three digits at most: `312 MiB`, `1.25 GiB`, `12.5 GiB`."""
    unit, unit_bytes = next((each for each in _UNITS if abs(size_bytes) >= each[1]), ("bytes", 1))
    number = size_bytes / unit_bytes
    digits = 0 if number >= 100 or unit == "bytes" else 1 if number >= 10 else 2
    return f"{round(number, digits):g} {unit}"


def counted(number: int, noun: str) -> str:
    """A number with its noun: `1 device`, `2 devices`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
