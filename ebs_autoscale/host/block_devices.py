"""Which block node is that volume: NVMe serial, by-id link, Xen name; blankness."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ebs_autoscale.errors import Cause, CommandFailed, Transient, Unfit
from ebs_autoscale.filesystems.btrfs.mkfs import is_left_by_mkfs
from ebs_autoscale.host.command import run
from ebs_autoscale.host.mountinfo import MountTable
from ebs_autoscale.model import Volume

_EBS_MODEL = "Amazon Elastic Block Store"
_BY_ID = "nvme-Amazon_Elastic_Block_Store_"
_SECTOR_BYTES = 512  # the unit of sysfs, whatever the device's own sectors are
# Some AMIs map the root volume as /dev/sda1, and old guests see a /dev/xvda1 without its xvda.
_NAMES = re.compile(r"((?:sd|xvd)[a-z]{1,2})\d*")
_BLKID_TIMEOUT_SECONDS = 60.0
_BLKID_NOTHING_FOUND = 2

_MIB = 1024**2
# Where `btrfs device add` writes, and where filesystems and partition tables keep their
# beginnings, ends and BTRFS its copies of the superblock.
_EDGE_BYTES = 4 * _MIB
_SUPERBLOCK_COPIES_AT = (64 * _MIB, 256 * 1024 * _MIB)
_SUPERBLOCK_BYTES = 4096


class BlockDevices:
    """The block devices of this host, found by what they are and never by being the newest.

    Names are the kernel's (`nvme1n1`). `dev` and `sysfs` are where the host shows them.
    """

    def __init__(self, *, dev: Path = Path("/dev"), sysfs: Path = Path("/sys")) -> None:
        self._dev = dev
        self._sysfs = sysfs

    def node_of(self, volume: Volume) -> str:
        """The kernel name of the volume's node; empty while it is not there or not ours.

        It may show before EC2 says attached; it is to be used only after.

        By NVMe serial; else by the by-id link, whose target must not have another serial
        (links can be stale, aws-ebs-csi-driver#1224); else, where no NVMe is involved, by
        the requested name with the size equal. Source: EC2 user guide, "Device names on
        Linux instances" and "Amazon EBS volumes and NVMe".
        """
        if not volume.attached_to or volume.attachment_state not in {"attaching", "attached"}:
            return ""
        return self._by_serial(volume) or self._by_link(volume) or self._by_name(volume)

    def names_present(self) -> frozenset[str]:
        """The attachment names that this host uses, ours or not: `/dev/sdf`, `/dev/xvdba`."""
        found = (_NAMES.fullmatch(path.name) for path in self._dev.iterdir())
        return frozenset(f"/dev/{match[1]}" for match in found if match)

    def name_of(self, path: str) -> str:
        """The kernel's name of the whole device that this path leads to; raises Unfit."""
        try:
            node = Path(path).resolve(strict=True)
        except OSError as error:
            raise Unfit(
                f"{path}: {error.strerror}",
                hint="see `lsblk` for the devices there are; on Nitro they are /dev/nvme...",
                cause=Cause.DEVICE,
            ) from error
        if not node.is_block_device() or not (self._block / node.name).is_dir():
            raise _unfit(path, "is not a whole block device", cause=Cause.DEVICE)
        return node.name

    def size_of(self, name: str) -> int:
        """Size of the device in bytes."""
        return int(self._attribute(name, "size") or 0) * _SECTOR_BYTES

    def volume_id_of(self, name: str) -> str:
        """The EBS volume behind this node; empty when it does not say. See node_of."""
        serials = [self.serial_of(name)] if self._is_ebs(name) else []
        links = (self._dev / "disk/by-id").glob(f"{_BY_ID}*")
        serials += [link.name.removeprefix(_BY_ID) for link in links if link.resolve().name == name]
        found = (re.fullmatch(r"vol([0-9a-f]+)", serial) for serial in serials)
        return next((f"vol-{match[1]}" for match in found if match), "")

    def require_blank(self, name: str, *, size_bytes: int, unfinished: str = "") -> None:
        """Prove that this device is the whole, unused, empty one we bought; changes nothing on it.

        What a killed mkfs.btrfs of the filesystem `unfinished` left counts as empty.
        Raises Unfit that says what was found: `btrfs device add` itself overwrites whatever
        has no signature. Raises Transient when it cannot be read.
        """
        self.require_unused(name, size_bytes=size_bytes)
        try:
            self._require_no_signature(name)
            self._require_zeroes(name, size_bytes, unfinished)
        except OSError as error:
            raise Transient(
                f"cannot inspect {name}: {error}", cause=Cause.DEVICE_UNREADABLE
            ) from error

    def require_unused(self, name: str, *, size_bytes: int) -> None:
        """Prove that nothing uses this whole device, whatever is on it; raises as require_blank."""
        try:
            self._require_unused(name, size_bytes)
        except OSError as error:
            raise Transient(
                f"cannot inspect {name}: {error}", cause=Cause.DEVICE_UNREADABLE
            ) from error

    @contextmanager
    def verified_blank(self, name: str, *, size_bytes: int) -> Iterator[None]:
        """`require_blank`, and the name goes to no other device as long as this is entered.

        A device that is open keeps its number and its name, also when it is detached. A claim
        (O_EXCL) would keep others from using it, but keeps `btrfs device add` from it too: that
        takes its own, and looks for signatures under it.
        """
        try:
            fd = os.open(self._dev / name, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self.require_blank(name, size_bytes=size_bytes)
            raise
        try:
            self.require_blank(name, size_bytes=size_bytes)
            if os.fstat(fd).st_rdev != (self._dev / name).stat().st_rdev:
                raise _unfit(
                    name, "became another device while it was looked at", cause=Cause.DEVICE
                )
            yield
        finally:
            os.close(fd)

    def _by_serial(self, volume: Volume) -> str:
        wanted = _serial(volume)
        for path in sorted(self._block.glob("nvme*n*")):
            if self.serial_of(path.name) == wanted and self._is_ebs(path.name):
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
            name = node.resolve().name  # Amazon Linux links one to the other
            if node.exists() and (self._block / name).exists():
                return name if self._is_plausible(name, volume) else ""
        return ""

    def _is_plausible(self, name: str, volume: Volume) -> bool:
        """Nothing about this node says that it is another volume."""
        serial = self.serial_of(name)
        if serial or name.startswith("nvme"):
            return serial == _serial(volume) and self._is_ebs(name)
        return self.size_of(name) == volume.size_bytes

    def _is_ebs(self, name: str) -> bool:
        # Instance store is NVMe too: "Amazon EC2 NVMe Instance Storage".
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
            raise _unfit(name, f"is held by {', '.join(holders)}", cause=Cause.IN_USE)
        if user := self._user_of(name):
            raise _unfit(name, f"is in use as {user}", cause=Cause.IN_USE)
        with self._claimed(name):
            pass

    def _user_of(self, name: str) -> str:
        number = self._attribute(name, "dev")
        for mount in MountTable().mounts():
            if mount.device == number:
                return f"the {mount.kind} mounted on {mount.point}"
        for line in Path("/proc/swaps").read_text("utf-8").splitlines()[1:]:
            if Path(line.split()[0]).name == name:
                return "swap"
        for device in self._sysfs.glob(f"fs/btrfs/*/devices/{name}"):
            return f"a device of the mounted BTRFS {device.parent.parent.name}"
        for backing in self._block.glob("loop*/loop/backing_file"):
            if backing.read_text("utf-8", "replace").strip() == str(self._dev / name):
                return f"what {backing.parent.parent.name} lies on"
        return ""

    def _require_no_signature(self, name: str) -> None:
        try:
            found = run(
                ["blkid", "-p", "-o", "export", str(self._dev / name)],
                timeout_seconds=_BLKID_TIMEOUT_SECONDS,
            )
        except CommandFailed as error:
            if error.status == _BLKID_NOTHING_FOUND:
                return
            # 8: signatures of several kinds, and nobody knows which one holds.
            raise _unfit(name, f"cannot be told to be blank: {error}") from error
        raise _unfit(name, f"carries {_signature(found)}")

    def _require_zeroes(self, name: str, size_bytes: int, unfinished: str) -> None:
        with self._claimed(name) as fd:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            for offset, length in _places(size_bytes):
                content = os.pread(fd, length, offset)
                if content == bytes(length):
                    continue
                if not unfinished or not is_left_by_mkfs(content, at=offset, filesystem=unfinished):
                    raise _unfit(name, f"is not empty: there is content at {offset} bytes")

    @contextmanager
    def _claimed(self, name: str) -> Iterator[int]:
        """The device, open for reading, with no other claim (O_EXCL) on it."""
        flags = os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC
        try:
            fd = os.open(self._dev / name, flags)
        except OSError as error:
            if error.errno == errno.EBUSY:
                raise _unfit(name, "is claimed by somebody else", cause=Cause.CLAIMED) from error
            raise
        try:
            yield fd
        finally:
            os.close(fd)

    def serial_of(self, name: str) -> str:
        """The serial number of an NVMe device, without dashes; empty when it has none."""
        return self._attribute(name, "device/serial").replace("-", "")

    def _attribute(self, name: str, attribute: str) -> str:
        """What sysfs says, without its padding; empty when it says nothing."""
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


def _signature(blkid: str) -> str:
    fields = dict(line.split("=", 1) for line in blkid.splitlines() if "=" in line)
    kind = fields.get("TYPE") or fields.get("PTTYPE") or "something that blkid recognises"
    uuid = fields.get("UUID") or fields.get("PTUUID")
    return f"{kind}, UUID {uuid}" if uuid else kind


def _places(size_bytes: int) -> list[tuple[int, int]]:
    copies = [(offset, _SUPERBLOCK_BYTES) for offset in _SUPERBLOCK_COPIES_AT]
    edge_bytes = min(_EDGE_BYTES, size_bytes)
    edges = [(0, edge_bytes), (size_bytes - edge_bytes, edge_bytes)]
    return edges + [(at, length) for at, length in copies if at + length <= size_bytes]


def _unfit(name: str, found: str, *, cause: Cause = Cause.NOT_BLANK) -> Unfit:
    return Unfit(
        f"{name} {found}",
        hint="it is left as it is: look what it is, and detach or wipe it by hand",
        cause=cause,
    )
