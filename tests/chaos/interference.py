"""An operator who detaches or deletes a volume during a growth, but never one in use."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil
from ec2_sandbox.client import VolumeSeen
from ec2_sandbox.errors import InputInvalid

from tests.chaos.ground import Ground, wait
from tests.chaos.weather import Deed

_STOP_SECONDS = 2.0


def interfere(ground: Ground, deed: Deed, *, seconds: float) -> bool:
    """Do it to the first volume that allows it; returns False when there was none in time."""
    done: list[str] = []

    def tried() -> bool:
        if _victims(ground, deed):
            with _stopped_growth(ground) as is_safe:
                victims = _victims(ground, deed) if is_safe else []
                if victims and _do(ground, deed, victims[0]):
                    done.append(victims[0].id)
        return bool(done)

    return wait(tried, seconds=seconds)


def _victims(ground: Ground, deed: Deed) -> list[VolumeSeen]:
    wanted = {Deed.DETACH: "in-use", Deed.DELETE: "available"}[deed]
    return [volume for volume in ground.leaked() if volume.state == wanted]


def _do(ground: Ground, deed: Deed, volume: VolumeSeen) -> bool:
    """Whether EC2 accepted it."""
    action = {Deed.DETACH: "DetachVolume", Deed.DELETE: "DeleteVolume"}[deed]
    try:
        ground.host.sandbox.operate(action, VolumeId=volume.id)
    except InputInvalid:
        return False
    return True


@contextmanager
def _stopped_growth(ground: Ground) -> Iterator[bool]:
    """Suspend the growth; False when it has started a tool, which could be adding the device.

    A tool continues while its growth is suspended.
    """
    children = ground.daemon.children()
    growths = [child for child in children if _is_growth(child)]
    for growth in growths:
        with suppress(psutil.NoSuchProcess):
            growth.suspend()
    try:
        still = wait(
            lambda: all(_is_suspended(growth) for growth in growths), seconds=_STOP_SECONDS
        )
        tools = [child for child in ground.daemon.children() if not _is_growth(child)]
        yield bool(growths) and still and not tools
    finally:
        for growth in growths:
            with suppress(psutil.NoSuchProcess):
                growth.resume()


def _is_growth(process: psutil.Process) -> bool:
    try:
        return "grow" in process.cmdline()
    except psutil.Error:
        return False


def _is_suspended(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_STOPPED
    except psutil.NoSuchProcess:
        return False
