"""What the verbs do that set up a host and take it down, from arguments to exit code."""

import argparse
import os
import signal
from dataclasses import replace

from ebs_autoscale.clock import SystemClock
from ebs_autoscale.config import values as config_values
from ebs_autoscale.config.constraints import VOLUME_TYPES
from ebs_autoscale.errors import ConfigInvalid
from ebs_autoscale.exits import Exit
from ebs_autoscale.host.lock import Lock
from ebs_autoscale.model import GIB
from ebs_autoscale.provision import config_file as first_config
from ebs_autoscale.provision.init import Initialisation, Wish
from ebs_autoscale.telemetry.logs import LogSink
from ebs_autoscale.wiring import init_lock_path, require_fit_host

FIRST_SIZE_BYTES = 20 * GIB


def init(arguments: argparse.Namespace) -> int:
    """Set up one filesystem, from the volume to the service; what is there is left as it is."""
    wish = _wish(arguments)
    require_fit_host()
    clock = SystemClock()
    clock.stop_on(signal.SIGTERM, signal.SIGINT)
    with Lock(init_lock_path()):
        Initialisation(wish, clock, LogSink()).run()
    return Exit.FINE


def _wish(arguments: argparse.Namespace) -> Wish:
    mountpoint = _mountpoint(arguments.mountpoint)
    path, settings = first_config.settled(arguments.config, mountpoint)
    if arguments.device and arguments.size:
        raise ConfigInvalid("--size is of a volume to buy; with --device none is bought")
    size_bytes = -(-(arguments.size or FIRST_SIZE_BYTES) // GIB) * GIB
    kind = settings.volume.type
    least_gib, most_gib = VOLUME_TYPES[kind].least_gib, VOLUME_TYPES[kind].most_gib
    if not arguments.device and not least_gib <= size_bytes // GIB <= most_gib:
        what = f"--size {size_bytes // GIB} GiB: {kind} has {least_gib} to {most_gib} GiB"
        raise ConfigInvalid(
            what, hint=f"choose a size in between, or another volume.type in {path}"
        )
    return Wish(
        # As the kernel's mount table has it.
        settings=replace(settings, mountpoint=mountpoint),
        config_path=path,
        size_bytes=size_bytes,
        device=arguments.device,
    )


def _mountpoint(text: str) -> str:
    """The path without symlinks; raises ConfigInvalid for what cannot be a mountpoint."""
    try:
        path = config_values.mountpoint(text)
    except ValueError as error:
        raise ConfigInvalid(f"MOUNTPOINT: {error}", cause="usage") from error
    real = os.path.realpath(path)
    if real == "/":
        raise ConfigInvalid(f"MOUNTPOINT {text}: / is mounted already", cause="usage")
    if not real.isprintable():
        what = f"MOUNTPOINT {text!r}: control characters do not fit in fstab"
        raise ConfigInvalid(what, cause="usage")
    return real
