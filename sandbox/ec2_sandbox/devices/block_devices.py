"""How a volume shows itself in /dev: a loop device, and the link by which it is found."""

import errno
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ebs_autoscale.errors import Unfit
from ec2_sandbox.devices.loop import LoopDevice
from ec2_sandbox.settings import BlockDevices

_BY_ID = "nvme-Amazon_Elastic_Block_Store_"
_TRIAL_BYTES = 1024**2


class BlockDevicePort(Protocol):
    """What a world needs of block devices; sizes in bytes, names as AttachVolume takes them."""

    def appear(self, volume_id: str, *, size_bytes: int, device_name: str) -> None:
        """Show an attached volume, with what was written to it before; Unfit when impossible."""

    def disappear(self, volume_id: str) -> None:
        """Hide a detached volume and keep its content."""

    def discard(self, volume_id: str) -> None:
        """Hide a volume and let its content go."""

    def resize(self, volume_id: str, size_bytes: int) -> None:
        """Let a volume grow, shown or not."""

    def is_held(self, volume_id: str) -> bool:
        """Whether something on this host uses the device, as a mount does."""

    def shown(self) -> Mapping[str, str]:
        """Kernel names of the devices that show now, by volume id."""

    def close(self) -> None:
        """Undo everything."""


class NoBlockDevices:
    """The port without any device: the API alone."""

    def appear(self, volume_id: str, *, size_bytes: int, device_name: str) -> None:
        """Do nothing."""

    def disappear(self, volume_id: str) -> None:
        """Do nothing."""

    def discard(self, volume_id: str) -> None:
        """Do nothing."""

    def resize(self, volume_id: str, size_bytes: int) -> None:
        """Do nothing."""

    def is_held(self, volume_id: str) -> bool:
        """Nothing is ever in use."""
        del volume_id
        return False

    def shown(self) -> Mapping[str, str]:
        """Nothing shows."""
        return {}

    def close(self) -> None:
        """Do nothing."""


@dataclass(slots=True)
class _Backed:
    loop: LoopDevice
    link: Path | None = None


class LoopBlockDevices:
    """Volumes over loop devices, linked in /dev as a Nitro or a Xen instance would show them.

    The file behind a loop device lasts from the first attach to the deletion of its volume, so
    that data survive a detach; the device comes and goes with its link. One that is mounted
    stays when its volume is torn away.
    """

    def __init__(self, kind: BlockDevices, *, directory: Path, dev: Path = Path("/dev")) -> None:
        self._kind = kind
        self._directory = directory
        self._dev = dev
        self._backed: dict[str, _Backed] = {}

    def appear(self, volume_id: str, *, size_bytes: int, device_name: str) -> None:
        """Bind a sparse file to a loop device at first, and link it.

        Unfit when the host has no loop devices or the name is taken by somebody else's node.
        """
        if volume_id not in self._backed:
            loop = LoopDevice.create(size_bytes, directory=self._directory)
            self._backed[volume_id] = _Backed(loop)
        backed = self._backed[volume_id]
        backed.loop.bind()
        self._remove_stale_links(backed.loop.name)
        link = self._link_for(volume_id, device_name)
        if self._is_stale(link):
            link.unlink()
        _place(link, target=os.path.relpath(self._dev / backed.loop.name, link.parent))
        backed.link = link

    def disappear(self, volume_id: str) -> None:
        """Remove the link, and the device unless it is in use."""
        if (backed := self._backed.get(volume_id)) and backed.link:
            _remove_own(backed.link, backed.loop.name)
            backed.link = None
            if not self.is_held(volume_id):
                backed.loop.unbind()

    def discard(self, volume_id: str) -> None:
        """Remove the link and let go of the loop device; a mounted one lasts until unmounted."""
        self.disappear(volume_id)
        if backed := self._backed.pop(volume_id, None):
            backed.loop.close()

    def resize(self, volume_id: str, size_bytes: int) -> None:
        """Give the loop device its new size; one never attached gets it at its first attach."""
        if backed := self._backed.get(volume_id):
            backed.loop.resize(size_bytes)

    def is_held(self, volume_id: str) -> bool:
        """Ask the kernel: whoever mounts a device holds it exclusively."""
        backed = self._backed.get(volume_id)
        if backed is None or not backed.loop.is_bound:
            return False
        try:
            os.close(os.open(f"/dev/{backed.loop.name}", os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
        except OSError as error:
            return error.errno == errno.EBUSY
        return False

    def shown(self) -> Mapping[str, str]:
        """Kernel names, such as `loop7`, by volume id."""
        return {
            volume_id: backed.loop.name for volume_id, backed in self._backed.items() if backed.link
        }

    def close(self) -> None:
        """Remove every link and let go of every loop device."""
        for volume_id in list(self._backed):
            self.discard(volume_id)

    def _link_for(self, volume_id: str, device_name: str) -> Path:
        if self._kind == "nitro":
            return self._dev / "disk/by-id" / (_BY_ID + volume_id.replace("-", ""))
        return self._dev / node_name(device_name)

    def _is_stale(self, link: Path) -> bool:
        """Whether a sandbox that is no more left this link.

        A loop device behind the id of one of our volumes tells it by itself; one behind a
        Xen name, which every sandbox may use, only when nothing is bound to it.
        """
        if not (link.is_symlink() and link.readlink().name.startswith("loop")):
            return False
        backing = Path(f"/sys/block/{link.readlink().name}/loop/backing_file")
        return self._kind == "nitro" or not backing.exists()

    def _remove_stale_links(self, loop_name: str) -> None:
        # The kernel just gave us this loop device as free: whatever link of a
        # sandbox points at it was left by one that was killed.
        for link in self._links():
            _remove_own(link, loop_name)

    def _links(self) -> Iterator[Path]:
        yield from (self._dev / "disk/by-id").glob(f"{_BY_ID}*")
        yield from self._dev.glob("xvd*")


def node_name(device_name: str) -> str:
    """Name the node that a Xen guest makes of a requested name: `/dev/sdf` becomes `xvdf`."""
    name = device_name.removeprefix("/dev/")
    return f"xvd{name[2:]}" if name.startswith("sd") else name


def _place(link: Path, *, target: str) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    try:
        link.symlink_to(target)
    except FileExistsError as error:
        raise Unfit(
            f"{link} exists and is not of this sandbox",
            hint="choose another device name, or another seed",
            cause="name taken",
        ) from error


def _remove_own(link: Path, loop_name: str) -> None:
    if link.is_symlink() and link.readlink().name == loop_name:
        link.unlink()


def block_devices(kind: BlockDevices, *, directory: Path) -> BlockDevicePort:
    """Make the port of this kind, tried out; Unfit when the host cannot have it."""
    if kind == "none":
        return NoBlockDevices()
    trial = LoopDevice.create(_TRIAL_BYTES, directory=directory)
    is_node = stat.S_ISBLK(Path(f"/dev/{trial.name}").stat().st_mode)
    trial.close()
    if not is_node:
        raise Unfit(f"/dev/{trial.name} is no block device", cause="no loop devices")
    return LoopBlockDevices(kind, directory=directory)
