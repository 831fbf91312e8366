"""What the page cache takes of what programs write, before they wait for the devices."""

import os
from collections.abc import Callable

_MEMORY_BYTES = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def dirty_limit_bytes(number_in: Callable[[str], int]) -> int:
    """The most that may be dirty in the page cache of all filesystems together.

    `number_in` reads a file. Beyond it writers wait for the devices. The kernel counts only memory
    that can be dirty, so it may be less.
    Source: https://docs.kernel.org/admin-guide/sysctl/vm.html
    """
    if limit := number_in("/proc/sys/vm/dirty_bytes"):
        return limit
    return _MEMORY_BYTES * number_in("/proc/sys/vm/dirty_ratio") // 100
