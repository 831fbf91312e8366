"""Which block device an EBS volume is, and whether a block device is blank."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NoReturn
from uuid import UUID

from ebs_autoscale.errors import Cause, CommandFailed, EbsAutoscaleError, Transient, Unfit
from ebs_autoscale.host import blank
from ebs_autoscale.host.mountinfo import MountTable
from ebs_autoscale.host.process import users_of
from ebs_autoscale.model import SYSFS_SECTOR_BYTES, Volume

_EBS_MODEL = "Amazon Elastic Block Store"
_BY_ID = "nvme-Amazon_Elastic_Block_Store_"
# Not `nvme1c1n1`: with multipath, the kernel's path to the namespace `nvme1n1`, of the same serial.
_NAMESPACE = re.compile(r"nvme\d+n\d+")
_BTRFS_UUID_AT = blank.BTRFS_SUPERBLOCK_AT + 32  # after the checksum of the first superblock
# Some AMIs map the root volume as /dev/sda1, and old guests have /dev/xvda1 without /dev/xvda.
_NAMES = re.compile(r"((?:sd|xvd)[a-z]{1,2})\d*")


class BlockDevices:
    """The block devices of this host; their names are the kernel's, such as `nvme1n1`."""

    def __init__(self, *, dev: Path = Path("/dev"), sysfs: Path = Path("/sys")) -> None:
        self._dev = dev
        self._sysfs = sysfs

    def node_of(self, volume: Volume) -> str:
        """The kernel name of the volume's block device; empty unless it is attached here.

        Identified by its NVMe serial number; else by the by-id link, unless the target has another
        serial number (https://github.com/kubernetes-sigs/aws-ebs-csi-driver/issues/1224); else, on
        Xen, by the requested name; without a serial number also by the size, unless it is mounted.
        It may appear before EC2 reports the volume as attached, and is to be used only after that.
        Source: https://docs.aws.amazon.com/ebs/latest/userguide/nvme-ebs-volumes.html
        """
        if not volume.attached_to or volume.attachment_state not in {"attaching", "attached"}:
            return ""
        return self._by_serial(volume) or self._by_link(volume) or self._by_name(volume)

    def names_present(self) -> frozenset[str]:
        """The attachment names in use on this host, such as `/dev/sdf` and `/dev/xvdba`."""
        found = (_NAMES.fullmatch(path.name) for path in self._dev.iterdir())
        return frozenset(f"/dev/{match[1]}" for match in found if match)

    def name_of(self, path: str) -> str:
        """The kernel name of the whole block device at this path; raises Unfit."""
        try:
            node = Path(path).resolve(strict=True)
        except OSError as error:
            raise Unfit(
                f"{path}: {error.strerror}",
                hint="list the devices with `lsblk`; on Nitro instances they are /dev/nvme...",
                cause=Cause.DEVICE,
            ) from error
        if not node.is_block_device() or not (self._block / node.name).is_dir():
            raise _unfit(path, "is not a whole block device", cause=Cause.DEVICE)
        return node.name

    def size_of(self, name: str) -> int:
        """The size of the device in bytes; 0 when there is none."""
        return int(self._attribute(name, "size") or 0) * SYSFS_SECTOR_BYTES

    def is_encrypted(self, name: str) -> bool:
        """Whether it is the open side of dm-crypt, such as LUKS."""
        return self._attribute(name, "dm/uuid").startswith("CRYPT-")

    def volume_id_of(self, name: str) -> str:
        """The id of the EBS volume behind this block device; empty when it is not known."""
        serials = [self.serial_of(name)] if self._is_ebs(name) else []
        links = (self._dev / "disk/by-id").glob(f"{_BY_ID}*")
        serials += [link.name.removeprefix(_BY_ID) for link in links if link.resolve().name == name]
        found = (re.fullmatch(r"vol([0-9a-f]+)", serial) for serial in serials)
        return next((f"vol-{match[1]}" for match in found if match), "")

    def require_blank(
        self, name: str, *, size_bytes: int, is_leftover: blank.IsLeftover | None = None
    ) -> None:
        """Verify that the device is whole, unused, of this size and blank; changes nothing on it.

        `btrfs device add` itself overwrites whatever has no known signature. Content for which
        `is_leftover` returns true is ignored. Raises Unfit with what was found, also when the
        device cannot be read.
        """
        self.require_unused(name, size_bytes=size_bytes)
        try:
            self._require_no_signature(name, size_bytes)
            self._require_zeroes(name, size_bytes, is_leftover)
        except OSError as error:
            raise _uninspectable(name, error) from error

    def require_unused(self, name: str, *, size_bytes: int) -> None:
        """Verify that nothing uses this whole device, whatever its content; see `require_blank`."""
        try:
            self._require_unused(name, size_bytes)
        except OSError as error:
            raise _uninspectable(name, error) from error

    @contextmanager
    def verified_blank(self, name: str, *, size_bytes: int, volume_id: str = "") -> Iterator[None]:
        """`require_blank`, and the name belongs to this device as long as this is entered.

        A device that is open keeps its number and its name, even when it is detached. It cannot be
        claimed (O_EXCL) as well: `btrfs device add` claims it to look for signatures. Errors name
        the volume.
        """
        with ExitStack() as opened:
            try:
                fd = os.open(self._dev / name, os.O_RDONLY | os.O_CLOEXEC)
                opened.callback(os.close, fd)
                self.require_blank(name, size_bytes=size_bytes)
                if os.fstat(fd).st_rdev != (self._dev / name).stat().st_rdev:
                    what = "changed to another device during verification"
                    raise _unfit(name, what, cause=Cause.DEVICE)
            except OSError as error:
                raise _named(volume_id, _uninspectable(name, error)) from error
            except EbsAutoscaleError as error:
                raise _named(volume_id, error) from error
            yield

    def was_device_of(self, name: str, filesystem: str) -> bool:
        """Whether the BTRFS with this UUID was on it, even if it was removed from it.

        On a device that is removed the kernel erases nothing but the magic number of each
        superblock (fs/btrfs/volumes.c, btrfs_scratch_superblocks).
        """
        try:
            with (self._dev / name).open("rb", buffering=0) as node:
                node.seek(_BTRFS_UUID_AT)
                return node.read(16) == UUID(filesystem).bytes
        except (OSError, ValueError):
            return False

    def _by_serial(self, volume: Volume) -> str:
        wanted = _serial(volume)
        for path in sorted(self._block.glob("nvme*n*")):
            is_namespace = _NAMESPACE.fullmatch(path.name) and not self._is_hidden(path.name)
            if is_namespace and self.serial_of(path.name) == wanted and self._is_ebs(path.name):
                return path.name
        return ""

    def _by_link(self, volume: Volume) -> str:
        link = f"disk/by-id/{_BY_ID}{_serial(volume)}"
        name = (self._dev / link).resolve().name
        if not (self._dev / link).exists() or not (self._block / name).exists():
            return ""
        return name if self._is_plausible(name, volume) else ""

    def _by_name(self, volume: Volume) -> str:
        requested = volume.device_name.removeprefix("/dev/")
        if not _NAMES.fullmatch(requested):
            return ""
        for alias in (requested, re.sub("^(sd|xvd)", _other_prefix, requested)):
            node = self._dev / alias
            name = node.resolve().name  # on Amazon Linux one is a link to the other
            if node.exists() and (self._block / name).exists():
                return name if self._is_plausible(name, volume) else ""
        return ""

    def _is_plausible(self, name: str, volume: Volume) -> bool:
        """Whether nothing shows that this block device is another volume."""
        serial = self.serial_of(name)
        if serial or name.startswith("nvme"):
            return serial == _serial(volume) and self._is_ebs(name)
        # EC2 may list the size of an enlarged volume long before or after the kernel has it.
        return self.size_of(name) == volume.size_bytes or self._is_mounted(name)

    def _is_mounted(self, name: str) -> bool:
        """Whether a filesystem on it, or on a partition of it, is mounted."""
        parts = (path.parent.name for path in (self._block / name).glob("*/partition"))
        places = ("dev", *(f"{part}/dev" for part in parts))
        numbers = {self._attribute(name, place) for place in places}
        is_btrfs = any(self._sysfs.glob(f"fs/btrfs/*/devices/{name}"))
        return is_btrfs or any(mount.device in numbers for mount in MountTable().mounts())

    def _is_hidden(self, name: str) -> bool:
        """Whether it has no node and cannot be opened."""
        return self._attribute(name, "hidden") == "1"

    def _is_ebs(self, name: str) -> bool:
        # Instance store volumes are NVMe, too: "Amazon EC2 NVMe Instance Storage".
        return self._attribute(name, "device/model") in ("", _EBS_MODEL)

    def _require_unused(self, name: str, size_bytes: int) -> None:
        folder = self._block / name
        if not folder.is_dir() or not (self._dev / name).is_block_device():
            raise _unfit(name, "is not a whole block device", cause=Cause.DEVICE)
        if (size := self.size_of(name)) != size_bytes:
            raise _unfit(name, f"has {size} bytes, not {size_bytes}", cause=Cause.SIZE)
        if self._attribute(name, "ro") != "0":
            raise _unfit(name, "is read-only", cause=Cause.DEVICE)
        if partitions := sorted(path.parent.name for path in folder.glob("*/partition")):
            raise _unfit(name, f"has partitions: {', '.join(partitions)}")
        if holders := sorted(path.name for path in folder.glob("holders/*")):
            self._raise_held(name, holders)
        if user := self._user_of(name):
            raise _unfit(name, f"is in use as {user}", cause=Cause.IN_USE)
        with self._claimed(name):
            pass

    def _raise_held(self, name: str, holders: list[str]) -> NoReturn:
        maps = [self._attribute(holder, "dm/uuid") for holder in holders]
        if any(uuid.startswith("mpath-") for uuid in maps):
            raise _claimed_by(name, f"multipathd, as {', '.join(holders)}")
        raise _unfit(name, f"is held by {', '.join(holders)}", cause=Cause.IN_USE)

    def _user_of(self, name: str) -> str:
        number = self._attribute(name, "dev")
        for mount in MountTable().mounts():
            if mount.device == number:
                return f"the {mount.kind} filesystem mounted on {mount.point}"
        # The names of swap files are arbitrary bytes, in which the kernel escapes white space only.
        for line in Path("/proc/swaps").read_bytes().split(b"\n"):
            if line.partition(b" ")[0].rpartition(b"/")[2] == os.fsencode(name):
                return "swap"
        for device in self._sysfs.glob(f"fs/btrfs/*/devices/{name}"):
            return f"a device of the mounted BTRFS {device.parent.parent.name}"
        for backing in self._block.glob("loop*/loop/backing_file"):
            if backing.read_text("utf-8", "replace").strip() == str(self._dev / name):
                return f"the backing file of {backing.parent.parent.name}"
        return ""

    def _require_no_signature(self, name: str, size_bytes: int) -> None:
        try:
            found = blank.signature_of(self._dev / name)
        except CommandFailed as error:
            if error.status is None:
                # A read of our own would not end either, and nothing could end it.
                what = f"{name} does not respond: {error}"
                raise Unfit(what, hint=_UNREADABLE_HINT, cause=Cause.DEVICE_UNREADABLE) from error
            # Where the device cannot be read, reading it says so more clearly.
            with self._claimed(name) as fd:
                blank.content_at(fd, size_bytes=size_bytes)
            raise _unfit(name, f"may not be blank: {error}") from error
        if found:
            raise _unfit(name, f"contains {found}")

    def _require_zeroes(
        self, name: str, size_bytes: int, is_leftover: blank.IsLeftover | None
    ) -> None:
        with self._claimed(name) as fd:
            found = blank.content_at(fd, size_bytes=size_bytes, is_leftover=is_leftover)
        if found is not None:
            raise _unfit(name, f"is not blank: found data at offset {found}")

    @contextmanager
    def _claimed(self, name: str) -> Iterator[int]:
        """The device, open for reading, with no other claim (O_EXCL) on it."""
        flags = os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC
        try:
            fd = os.open(self._dev / name, flags)
        except OSError as error:
            if error.errno == errno.EBUSY:
                raise _claimed_by(name, users_of(self._dev / name)) from error
            raise
        try:
            yield fd
        finally:
            os.close(fd)

    def serial_of(self, name: str) -> str:
        """The serial number of an NVMe device without dashes; empty when it has none."""
        return self._attribute(name, "device/serial").replace("-", "")

    def _attribute(self, name: str, attribute: str) -> str:
        """The sysfs attribute without padding; empty when there is none."""
        try:
            return (self._block / name / attribute).read_text("utf-8", "replace").strip(" \n\0")
        except OSError:
            return ""

    @property
    def _block(self) -> Path:
        return self._sysfs / "block"


def _serial(volume: Volume) -> str:
    return volume.id.replace("-", "")


def _other_prefix(match: re.Match[str]) -> str:
    return "xvd" if match[1] == "sd" else "sd"


# Overwriting is no advice for a device that is in use. `wipefs` erases no more than signatures.
_NOT_BLANK_HINT = (
    "it was not changed: inspect it with `wipefs`, then detach it or overwrite it with zeroes"
)
_NOT_USABLE_HINT = "it was not changed: inspect it with `lsblk`, or use another device"
_CLAIMED_HINT = (
    "have that process leave EBS volumes alone, for multipathd by `blacklist { device { vendor "
    '"NVME" product "Amazon Elastic Block Store" } }` in /etc/multipath.conf and `multipathd '
    "reconfigure`; the next growth then uses the volume that was created last"
)
_UNREADABLE_HINT = (
    "it was not changed: see `dmesg` and the volume's status checks in EC2, then detach and delete "
    "it"
)


def _unfit(name: str, found: str, *, cause: Cause = Cause.NOT_BLANK) -> Unfit:
    return Unfit(
        f"{name} {found}",
        hint=_NOT_BLANK_HINT if cause is Cause.NOT_BLANK else _NOT_USABLE_HINT,
        cause=cause,
    )


def _named(volume_id: str, error: EbsAutoscaleError) -> EbsAutoscaleError:
    """The error with the volume that it is about: the kernel's name says little in EC2."""
    if not volume_id:
        return error
    family = Transient if isinstance(error, Transient) else Unfit
    return family(f"{volume_id}: {error.what}", hint=error.hint, cause=error.cause)


def _claimed_by(name: str, users: str) -> Unfit:
    what = f"{name} is opened exclusively by {users or 'another process'}"
    return Unfit(what, hint=_CLAIMED_HINT, cause=Cause.CLAIMED)


def _uninspectable(name: str, error: OSError) -> Unfit:
    what = f"{name} cannot be read: {error.strerror or error}"
    return Unfit(what, hint=_UNREADABLE_HINT, cause=Cause.DEVICE_UNREADABLE)
