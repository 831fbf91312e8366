"""The block device of a volume: a loop device, and the link in /dev by which it is found."""

import errno
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ec2_sandbox.devices.failing import DeviceFault, FailingDevice
from ec2_sandbox.devices.loop import LoopDevice
from ec2_sandbox.errors import HostUnfit, InputInvalid
from ec2_sandbox.settings import BlockDevices

_BY_ID = "nvme-Amazon_Elastic_Block_Store_"
_TRIAL_BYTES = 1024**2

Content = Mapping[int, bytes]
"""What is on a device, by offset; the rest is zeros."""

NO_CONTENT: Content = {}


class BlockDevicePort(Protocol):
    """The block devices that a world needs; device names are those of AttachVolume."""

    def appear(
        self, volume_id: str, *, size_bytes: int, device_name: str, content: Content = NO_CONTENT
    ) -> None:
        """Show an attached volume with its previous content, at first this one, and of this size.

        Raises HostUnfit.
        """

    def disappear(self, volume_id: str) -> None:
        """Hide a detached volume and keep its content."""

    def discard(self, volume_id: str) -> None:
        """Hide a volume and discard its content."""

    def grow(self, volume_id: str, size_bytes: int) -> None:
        """Enlarge a volume to this size, shown or not."""

    def fail(self, volume_id: str, fault: DeviceFault) -> None:
        """Let the device of this volume fail like this, without an id those to come."""

    def is_held(self, volume_id: str) -> bool:
        """Whether the device is in use on this host, for example mounted."""

    def shown(self) -> Mapping[str, str]:
        """Kernel names of the devices that are shown now, by volume id."""

    def close(self) -> None:
        """Remove everything."""


class NoBlockDevices:
    """No block devices at all: only the API is simulated."""

    def appear(
        self, volume_id: str, *, size_bytes: int, device_name: str, content: Content = NO_CONTENT
    ) -> None:
        """Do nothing."""

    def disappear(self, volume_id: str) -> None:
        """Do nothing."""

    def discard(self, volume_id: str) -> None:
        """Do nothing."""

    def grow(self, volume_id: str, size_bytes: int) -> None:
        """Do nothing."""

    def fail(self, volume_id: str, fault: DeviceFault) -> None:
        """Do nothing."""

    def is_held(self, volume_id: str) -> bool:
        """No device, so none is in use."""
        del volume_id
        return False

    def shown(self) -> Mapping[str, str]:
        """No device is shown."""
        return {}

    def close(self) -> None:
        """Do nothing."""


@dataclass(slots=True)
class _Backed:
    loop: LoopDevice
    link: Path | None = None


class LoopBlockDevices:
    """Loop devices, linked in /dev under the names that a Nitro or a Xen instance has.

    The file behind a loop device exists from the first attachment to the deletion of its volume,
    so that data survives a detach; the device exists while its volume is attached. A mounted
    device stays when its volume is detached by force.
    """

    def __init__(
        self,
        kind: BlockDevices,
        *,
        directory: Path,
        dev: Path = Path("/dev"),
        failing: bool = False,
    ) -> None:
        self._kind = kind
        self._failing = failing
        self._next_fault = DeviceFault.NONE
        self._directory = directory
        self._dev = dev
        self._backed: dict[str, _Backed] = {}

    def appear(
        self, volume_id: str, *, size_bytes: int, device_name: str, content: Content = NO_CONTENT
    ) -> None:
        """Bind the volume's sparse file to a loop device and link it.

        Raises HostUnfit when this host has no loop devices or the name is in use.
        """
        if volume_id not in self._backed:
            kind = FailingDevice if self._failing else LoopDevice
            device = kind.create(size_bytes, directory=self._directory)
            device.write(content)
            self._backed[volume_id] = _Backed(device)
            if self._next_fault:
                self.fail(volume_id, self._next_fault)
        backed = self._backed[volume_id]
        backed.loop.bind()
        self.grow(volume_id, size_bytes)
        self._remove_stale_links(backed.loop.name)
        link = self._link_for(volume_id, device_name)
        if self._is_stale(link):
            link.unlink()
        _place(link, target=os.path.relpath(self._dev / backed.loop.name, link.parent))
        backed.link = link
        backed.loop.show_partitions()

    def disappear(self, volume_id: str) -> None:
        """Remove the link, and the device unless it is in use."""
        if (backed := self._backed.get(volume_id)) and backed.link:
            _remove_own(backed.link, backed.loop.name)
            backed.link = None
            if not self.is_held(volume_id):
                backed.loop.unbind()

    def discard(self, volume_id: str) -> None:
        """Remove the link and the loop device; a mounted device stays until it is unmounted."""
        self.disappear(volume_id)
        if backed := self._backed.pop(volume_id, None):
            backed.loop.close()

    def grow(self, volume_id: str, size_bytes: int) -> None:
        """Enlarge the loop device, if the volume has been attached before."""
        if (backed := self._backed.get(volume_id)) and size_bytes > backed.loop.file_bytes:
            backed.loop.resize(size_bytes)

    def fail(self, volume_id: str, fault: DeviceFault) -> None:
        """Let the device fail; raises InputInvalid without the setting `failing_devices`."""
        if not self._failing:
            raise InputInvalid("devices fail only with the setting failing_devices")
        if not volume_id:
            self._next_fault = fault
            return
        loop = self._backed[volume_id].loop
        if isinstance(loop, FailingDevice):
            loop.fail(fault)

    def is_held(self, volume_id: str) -> bool:
        """Whether the kernel refuses an exclusive open, as it does for a mounted device."""
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
        """Remove every link and every loop device."""
        for volume_id in list(self._backed):
            self.discard(volume_id)

    def _link_for(self, volume_id: str, device_name: str) -> Path:
        if self._kind == "nitro":
            return self._dev / "disk/by-id" / (_BY_ID + volume_id.replace("-", ""))
        return self._dev / node_name(device_name)

    def _is_stale(self, link: Path) -> bool:
        """Whether a sandbox that was killed left this link behind.

        A link by volume id can only be that of an earlier sandbox. A Xen name may belong to
        another running sandbox, so it is stale only if its loop device is not bound.
        """
        if not (link.is_symlink() and link.readlink().name.startswith("loop")):
            return False
        backing = Path(f"/sys/block/{link.readlink().name}/loop/backing_file")
        return self._kind == "nitro" or not backing.exists()

    def _remove_stale_links(self, loop_name: str) -> None:
        # The kernel has just returned this loop device as free, so every link to it was left
        # behind by a sandbox that was killed.
        for link in self._links():
            _remove_own(link, loop_name)

    def _links(self) -> Iterator[Path]:
        yield from (self._dev / "disk/by-id").glob(f"{_BY_ID}*")
        yield from self._dev.glob("xvd*")


def node_name(device_name: str) -> str:
    """The name of the node in a Xen guest for a requested name: `xvdf` for `/dev/sdf`."""
    name = device_name.removeprefix("/dev/")
    return f"xvd{name[2:]}" if name.startswith("sd") else name


def _place(link: Path, *, target: str) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    try:
        link.symlink_to(target)
    except FileExistsError as error:
        raise HostUnfit(
            f"{link} exists and does not belong to this sandbox",
            hint="choose another device name, or another seed",
        ) from error


def _remove_own(link: Path, loop_name: str) -> None:
    if link.is_symlink() and link.readlink().name == loop_name:
        link.unlink()


def block_devices(kind: BlockDevices, *, directory: Path, failing: bool = False) -> BlockDevicePort:
    """Block devices of this kind, after a trial on this host; raises HostUnfit."""
    if kind == "none":
        return NoBlockDevices()
    trial = LoopDevice.create(_TRIAL_BYTES, directory=directory)
    is_node = stat.S_ISBLK(Path(f"/dev/{trial.name}").stat().st_mode)
    trial.close()
    if not is_node:
        raise HostUnfit(f"/dev/{trial.name} is not a block device")
    return LoopBlockDevices(kind, directory=directory, failing=failing)
