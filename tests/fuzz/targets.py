"""The parsers of what comes from outside, each with real samples to change."""

# ruff: noqa: E501, ISC004, RUF005 -- the samples are as the kernel, tools and EC2 write them

import io
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import botocore.awsrequest
from botocore.compat import HTTPHeaders

from ebs_autoscale.cli.history import as_text
from ebs_autoscale.cli.history_plot import svg_of
from ebs_autoscale.config import parse as parse_config
from ebs_autoscale.daemon.worker import GrowthRequest
from ebs_autoscale.ec2 import ebs_statistics
from ebs_autoscale.ec2.errors import translated
from ebs_autoscale.ec2.imds import Imds
from ebs_autoscale.errors import EbsAutoscaleError
from ebs_autoscale.filesystems.btrfs import scan
from ebs_autoscale.filesystems.btrfs.superblock import (
    is_left_by_mkfs,
    read_superblock,
    uuid_left_by_mkfs,
)
from ebs_autoscale.host import fstab, mountinfo, systemd
from ebs_autoscale.model import GIB, GrowthId, Identity, VolumeSpec
from ebs_autoscale.telemetry import Event, running_daemon
from ebs_autoscale.telemetry.entries import Entry, of_journal, of_log
from ebs_autoscale.telemetry.history import History, as_dict, history_of
from ebs_autoscale.units import json_text
from ebs_autoscale.volumes import FAIL_FAST_CONFIG, Ec2Volumes
from tests.fuzz.http import RAW_ANSWERS, RawService
from tests.fuzz.kernel import IOCTL_ANSWERS, SYSFS_FILES, SysfsReading, ioctls
from tests.simulated.clock import SimulatedClock
from tests.unit.samples import FILESYSTEM, inventory_of, volume_of

Target = tuple[tuple[bytes, ...], Callable[[bytes], object], tuple[type[Exception], ...]]
"""Samples, what parses them, and the exceptions that it declares."""

OURS = (EbsAutoscaleError,)
IDENTITY = Identity(
    instance_id="i-0123456789abcdef0",
    instance_type="m5.large",
    region="us-east-1",
    availability_zone="us-east-1a",
    account_id="123456789012",
)

EBS_STATISTICS = (0x3C23B510).to_bytes(8, "little") + bytes(range(80)) + b"\xff" * 4008
MOUNTINFO = rb"""22 28 0:21 / /proc rw,nosuid shared:13 - proc proc rw
40 28 0:35 / /scratch rw,relatime shared:20 - btrfs /dev/nvme1n1 rw,space_cache=v2,subvol=/
41 28 0:36 /sub /a\040b\134 rw master:1 propagate_from:2 - btrfs /dev/xvdba rw,subvol=/sub
"""
FSTAB = f"""# a comment
UUID={FILESYSTEM} /scratch btrfs defaults,nofail,x-systemd.device-timeout=300 0 0
/dev/xvdba /a\\040b btrfs noauto,subvol=/x
""".encode()
SHOW_UNIT = b"""Id=ebs-autoscale.service
LoadState=loaded
ActiveState=active
SubState=running
UnitFileState=enabled
Result=success
ExecMainStatus=0
NRestarts=3
"""
SHOW_BTRFS = f"""Label: none  uuid: {FILESYSTEM}
\tTotal devices 3 FS bytes used 144.00KiB
\tdevid    1 size 1.00GiB used 126.38MiB path /dev/loop0
\tdevid    2 size 0 used 0 path /dev/loop1 MISSING
\t*** Some devices missing
""".encode()
SUPERBLOCK = bytes(65536) + bytes(32) + bytes(range(16)) + bytes(16) + b"_BHRfS_M" + bytes(4024)
STATUS = b"""{"pid": 1, "version": "2", "state": "watching", "activity": "", "step": null, "low": "",
"conditions": {"quota": "q"}, "growths_since_start": 1, "growth_seconds": 30.5,
"fill_bytes_per_second": 1e6, "dropped_log_lines": 0}"""
EVENT = b"""{"event": "step started", "level": "info", "sentence": "attach", "hint": "",
"fields": {"step": "AttachVolume", "growth": "6a92f8de-1", "volume": "vol-1", "seconds": 1.5}}"""
JOURNAL_ENTRY = b"""{"__REALTIME_TIMESTAMP": "1795860841274971", "MESSAGE": [114, 255], "HINT": null,
"EBS_AUTOSCALE_EVENT": ["growth_done", "bug"], "GROWTH": "6a92f8de-1", "SECONDS": "2.425",
"SIZE_BYTES": "1073741824", "CAUSE": "denied"}"""
LOG_LINES = (
    b'2026-11-28T10:13:58+0000 done; see event=step_done growth=6a92f8de-1 volume="vol \\"1" seconds=1.5\n',
    b'{"time": "2026-11-28T10:13:58+0000", "level": "info", "message": "m", "event": "growth_done", "size_bytes": 1}',
)
REQUEST = b"""{"config_text": "mountpoint: /scratch", "forecast": {"fill_bytes_per_second": 1.0},
"events_fd": 3, "lock_fd": 4, "identity": null, "credentials": null}"""
CONFIG = Path("ebs_autoscale/config/config.yaml")
IDENTITY_DOCUMENT = b"""{"instanceId": "i-0123456789abcdef0", "instanceType": "m5.large",
"region": "us-east-1", "availabilityZone": "us-east-1a", "accountId": "123456789012"}"""
CREDENTIALS = b"""{"Code": "Success", "AccessKeyId": "A", "SecretAccessKey": "B", "Token": "C",
"Expiration": "2026-11-28T06:00:00Z"}"""

VOLUME_XML = f"""<item><volumeId>vol-0123456789abcdef0</volumeId><size>20</size><status>in-use</status>
<createTime>2026-11-28T02:00:00.000Z</createTime><attachmentSet><item><volumeId>vol-01</volumeId>
<instanceId>i-01</instanceId><device>/dev/xvdba</device><status>attached</status>
<deleteOnTermination>true</deleteOnTermination></item></attachmentSet><tagSet>
<item><key>ebs-autoscale:filesystem</key><value>{FILESYSTEM}</value></item>
<item><key>ebs-autoscale:growth</key><value>1</value></item></tagSet></item>"""
EC2_ANSWERS = tuple(
    f'<?xml version="1.0"?><{name} xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">'
    f"<requestId>r</requestId>{body}</{name}>".encode()
    for name, body in (
        ("DescribeVolumesResponse", f"<volumeSet>{VOLUME_XML}</volumeSet>"),
        ("CreateVolumeResponse", VOLUME_XML.removeprefix("<item>").removesuffix("</item>")),
        (
            "DescribeInstancesResponse",
            "<reservationSet><item><instancesSet><item><instanceId>i-01</instanceId>"
            "<blockDeviceMapping><item><deviceName>/dev/xvda</deviceName><ebs><volumeId>vol-1"
            "</volumeId></ebs></item></blockDeviceMapping><tagSet><item><key>a</key><value>b"
            "</value></item></tagSet></item></instancesSet></item></reservationSet>",
        ),
        (
            "DescribeInstanceTypesResponse",
            "<instanceTypeSet><item><hypervisor>nitro</hypervisor><ebsInfo><maximumEbsAttachments>"
            "27</maximumEbsAttachments><attachmentLimitType>shared</attachmentLimitType>"
            "<maximumEbsCards>2</maximumEbsCards></ebsInfo></item></instanceTypeSet>",
        ),
    )
) + (
    b"<Response><Errors><Error><Code>RequestLimitExceeded</Code><Message>slow</Message></Error>"
    b"</Errors><RequestID>r</RequestID></Response>",
)


def _text(parse: Callable[[str], object]) -> Callable[[bytes], object]:
    return lambda content: parse(content.decode("utf-8", "surrogateescape"))


def _told(parse: Callable[[str], Entry]) -> Callable[[bytes], object]:
    """What is read is also shown, in every form."""

    def shown(content: bytes) -> None:
        entry = parse(content.decode("utf-8", "replace"))
        whole = History(mountpoint="", since_seconds=0.0, until_seconds=1795860900.0)
        alarm = replace(entry, kind="condition_ended")
        history = history_of([entry, alarm, replace(entry, kind="growth_done", growth="1")], whole)
        ET.fromstring(svg_of(history).encode())  # noqa: S314 -- our own picture
        json_text(as_dict(history))
        as_text(history).encode("ascii", "backslashreplace")

    return shown


def _translated(content: bytes) -> None:
    text = content.decode("utf-8", "replace")
    code, _, message = text.partition("\n")
    for status in (200, 400, 503):
        translated("it", code=code, message=message, status=status, operation="CreateVolume")


def _fstab(text: str) -> None:
    fstab.lines_at(text, "/scratch")
    try:
        fstab.with_line(text, uuid=FILESYSTEM, mountpoint="/scratch", is_same=lambda _: False)
    finally:
        fstab.parse(text)


class _OneAnswer(Imds):
    """An IMDS that answers everything with the same text."""

    content = b""

    def _request(self, method: str, path: str, headers: Mapping[str, str]) -> tuple[int, str]:
        del method, headers
        return 200, "token" if "token" in path else self.content.decode("utf-8", "replace")


def _imds(content: bytes) -> None:
    imds = _OneAnswer(SimulatedClock(), {})
    imds.content = content
    for ask in (imds.identity, imds.credentials):
        try:
            ask(patience_seconds=0.0)
        except EbsAutoscaleError:
            continue


class FuzzedEc2:
    """Ec2Volumes whose every HTTP answer has the same body."""

    def __init__(self) -> None:
        self._cloud = Ec2Volumes(
            IDENTITY,
            VolumeSpec(copy_instance_tags=True),
            mountpoint="/scratch",
            clock=SimulatedClock(),
            config=FAIL_FAST_CONFIG,
        )
        self._content, self._status = b"", 200
        self._cloud.ec2.meta.events.register("before-send.ec2", self._answer)

    def _answer(self, request: Any, **_: object) -> Any:
        raw = io.BytesIO(self._content)
        raw.stream = lambda **_: iter([self._content])  # type: ignore[attr-defined] # as urllib3's
        return botocore.awsrequest.AWSResponse(request.url, self._status, HTTPHeaders(), raw)

    def __call__(self, content: bytes) -> None:
        """Make each call; raises only what is not an error of ours."""
        self._content, cloud, volume = content, self._cloud, volume_of(1)
        calls: tuple[Callable[[], object], ...] = (
            lambda: cloud.inventory(FILESYSTEM),
            cloud.instance,
            cloud.predecessors,
            cloud.owned,
            lambda: cloud.create(GrowthId(FILESYSTEM, 1), GIB, inventory_of()),
            lambda: cloud.refresh(volume),
            lambda: cloud.attach(volume, "/dev/xvdba", inventory_of()),
            lambda: cloud.delete(volume),
        )
        self._status = 400 if b"<Error" in content else 200
        for call in calls:
            try:
                call()
            except EbsAutoscaleError:
                continue


def _in_file(file: Path, parse: Callable[[Path], object]) -> Callable[[bytes], object]:
    def written(content: bytes) -> object:
        file.write_bytes(content)
        return parse(file)

    return written


def _kernel_targets(folder: Path) -> dict[str, Target]:
    device = folder / "device"
    return {
        "superblock": (
            (SUPERBLOCK,),
            _in_file(device, lambda path: read_superblock(str(path))),
            (),
        ),
        "superblock left by mkfs": (
            (SUPERBLOCK,),
            _in_file(device, lambda path: uuid_left_by_mkfs(str(path))),
            (),
        ),
        "mkfs": (
            (SUPERBLOCK,),
            lambda content: is_left_by_mkfs(content, 0, filesystem=FILESYSTEM),
            (),
        ),
        "ioctls": (IOCTL_ANSWERS, ioctls, ()),
        "sysfs": ((SYSFS_FILES,), SysfsReading(folder / "sysfs"), (OSError,)),
    }


@contextmanager
def targets() -> Iterator[dict[str, Target]]:
    """All parsers by name; AWS credentials have to be in the environment."""
    with (
        tempfile.TemporaryDirectory() as folder,
        RawService(endless=False) as service,
        RawService(endless=True) as endless_service,
    ):
        yield _kernel_targets(Path(folder)) | {
            "EBS statistics": ((EBS_STATISTICS,), ebs_statistics.parse, ()),
            "mountinfo": ((MOUNTINFO,), mountinfo.parse, ()),
            "fstab": ((FSTAB,), _text(_fstab), OURS),
            "systemctl show": ((SHOW_UNIT,), _text(systemd.parse_show), OURS),
            "btrfs filesystem show": ((SHOW_BTRFS,), _text(scan.parse_show), OURS),
            "status file": ((STATUS,), _in_file(Path(folder, "status"), running_daemon), OURS),
            "event": ((EVENT,), lambda content: Event.from_json(content.decode()), (ValueError,)),
            "journal entry": ((JOURNAL_ENTRY,), _told(of_journal), (ValueError,)),
            "log line": (LOG_LINES, _told(of_log), (ValueError,)),
            "growth request": (
                (REQUEST,),
                lambda content: GrowthRequest.read(io.BytesIO(content)),
                (ValueError, KeyError, TypeError),
            ),
            "configuration": (
                (CONFIG.read_bytes(), CONFIG.read_bytes().replace(b"#", b"")),
                _text(lambda text: parse_config(text, name="any")),
                OURS,
            ),
            "EC2 errors": (
                (b"TagPolicyViolation\nis not authorized to perform: x",),
                _translated,
                (),
            ),
            "EC2": (EC2_ANSWERS, FuzzedEc2(), ()),
            "IMDS": ((IDENTITY_DOCUMENT, CREDENTIALS), _imds, ()),
            "HTTP answers of IMDS": (RAW_ANSWERS, service, ()),
            "endless HTTP answers of IMDS": (RAW_ANSWERS, endless_service, ()),
        }
