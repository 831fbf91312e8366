"""Which device name to ask EC2 for. Pure."""

import string
from collections.abc import Set as AbstractSet

# Names accepted by EC2 on HVM instances, documented ones first. On Xen /dev/sdX and
# /dev/xvdX are one attachment point, so only two-letter names are offered.
DEVICE_NAMES = tuple(
    f"/dev/xvd{first}{second}"
    for first, seconds in (
        ("b", string.ascii_lowercase),
        ("c", string.ascii_lowercase),
        ("a", string.ascii_lowercase),
        ("d", "abcdefghijklmnopqrstuvwx"),
    )
    for second in seconds
)


def choose_device_name(
    taken: AbstractSet[str], avoid: AbstractSet[str] = frozenset()
) -> str | None:
    """A free name to ask EC2 for, those in `avoid` last; None when all are taken.

    /dev/sdX and /dev/xvdX count as one name: on Xen they are one attachment point.
    """
    points = {_attachment_point(name) for name in taken}
    free = [name for name in DEVICE_NAMES if _attachment_point(name) not in points]
    return next((name for name in free if name not in avoid), free[0] if free else None)


def _attachment_point(name: str) -> str:
    return name.removeprefix("/dev/").removeprefix("xvd").removeprefix("sd")
