"""A program that makes devices and mounts, in a namespace that ends with it."""

import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

from ec2_sandbox.devices.namespace import enter_private_namespace, why_not

from ebs_autoscale.errors import EbsAutoscaleError
from ebs_autoscale.host import paths

_CANNOT_RUN = 5


def alone(prefix: str) -> Path:
    """Leave the host's mounts, nodes and credentials outside: a folder that is private in here.

    Daemons, sandboxes, mounts, devices and what is in the folder end with this process, however
    it ends. Where that cannot be it says why, and exits.
    """
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    if reason := why_not():
        _give_up(reason)
    try:
        enter_private_namespace()
    except EbsAutoscaleError as error:
        _give_up(str(error))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: os._exit(128 + number))
    return Path(tempfile.mkdtemp(prefix=prefix, dir=paths.RUNTIME_DIRECTORY))


def _give_up(reason: str) -> NoReturn:
    sys.stdout.write(f"cannot run: {reason}\n")
    sys.exit(_CANNOT_RUN)
