"""A program that makes devices and mounts, in a namespace that ends with it."""

import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

from ec2_sandbox.devices.namespace import enter_private_namespace, missing_requirement
from ec2_sandbox.errors import HostUnfit

from ebs_autoscale.host.paths import RUNTIME_DIRECTORY

_CANNOT_RUN = 5


def alone(prefix: str) -> Path:
    """Leave the host's mounts, nodes and credentials outside: a folder that is private in here.

    Daemons, sandboxes, mounts, devices and what is in the folder end with this process, however
    it ends. Where that cannot be it says why, and exits.
    """
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    if reason := missing_requirement("btrfs"):
        _give_up(reason)
    try:
        enter_private_namespace(folders=[RUNTIME_DIRECTORY])
    except HostUnfit as error:
        _give_up(str(error))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: os._exit(128 + number))
    return Path(tempfile.mkdtemp(prefix=prefix, dir=RUNTIME_DIRECTORY))


def _give_up(reason: str) -> NoReturn:
    sys.stdout.write(f"cannot run: {reason}\n")
    sys.exit(_CANNOT_RUN)
