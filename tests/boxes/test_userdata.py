"""User data alone install the program; the filesystem grows and survives reboots."""

import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from hashlib import sha256
from pathlib import Path

import pytest
import yaml

from tests.boxes.box import HTTPS, Box
from tests.boxes.conftest import MakeBox
from tests.boxes.seen import devices, state, volumes
from tests.https import HttpsServer
from tests.release import built
from tests.userdata import USERDATA, multipart, with_settings

pytestmark = pytest.mark.kernel

# Somebody else's part, with keys that the next part replaces unless it says otherwise.
ANOTHER = """\
#cloud-config
write_files:
  - {path: /root/another, content: by write_files}
runcmd:
  - findmnt -no FSTYPE /scratch >/root/another-ran || echo none >/root/another-ran
"""
MERGE_HOW = next(line for line in USERDATA.splitlines() if line.startswith("merge_how:"))
BOOTCMD = "bootcmd:\n  - touch /root/another-booted\n"

# What Amazon Linux 2023 has, as far as the installation asks for it.
OS_RELEASE = """\
NAME="Amazon Linux"
VERSION="2023"
ID="amzn"
ID_LIKE="fedora"
VERSION_ID="2023"
PRETTY_NAME="Amazon Linux 2023"
"""
PYTHON_3_9 = """\
#!/bin/sh
case "$*" in *sys.version_info*) exit 1 ;; esac
exec /usr/lib/box/python3.11 "$@"
"""
DNF = """\
#!/bin/sh
echo "$*" >>/root/dnf-calls
for package; do :; done
[ "$package" = python3.11 ] || { echo "Error: Unable to find a match: $package" >&2; exit 1; }
ln -s /usr/lib/box/python3.11 /usr/bin/python3.11
"""
# One program that is several by its name, as btrfs.box.static is.
BTRFS_BOX = b'#!/bin/sh\nexec "/usr/lib/box/${0##*/}" "$@"\n'


@pytest.fixture
def server(tmp_path: Path) -> Iterator[HttpsServer]:
    """A server outside the box."""
    with HttpsServer(tmp_path) as server:
        yield server


@pytest.fixture
def trusted(server: HttpsServer, tmp_path: Path) -> dict[str, Path]:
    """What a box has that trusts the server: its certificate, by the name OpenSSL wants."""
    argv = ["openssl", "x509", "-noout", "-subject_hash", "-in", str(server.authority)]
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    folder = tmp_path / "trusted"
    folder.mkdir()
    shutil.copy(server.authority, folder / f"{done.stdout.strip()}.0")
    return {"etc/ssl/certs": folder}


@pytest.fixture
def release(server: HttpsServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The release, on the server."""
    (packed,) = built(tmp_path_factory).glob("*-linux-x86_64.tar.gz")
    (server.folder / packed.name).write_bytes(packed.read_bytes())
    return packed


def settings(release: Path) -> dict[str, str]:
    """The two settings that everybody has to make."""
    return {
        "URL": f"{HTTPS}/{release.name}",
        "SHA256": sha256(release.read_bytes()).hexdigest(),
    }


def wait_for_cloud_init(box: Box) -> None:
    """Wait until it has finished."""
    box.exec("cloud-init", "status", "--wait", check=False, timeout=300)


def has_grown(box: Box, count: int) -> bool:
    """Whether the filesystem has this many devices."""
    return devices(box) >= count


def grow(box: Box, *, to_devices: int) -> None:
    """Fill the filesystem until it has grown."""
    size = int(box.exec("stat", "-f", "-c", "%b", "/scratch").stdout) * 4096
    free = int(box.exec("stat", "-f", "-c", "%a", "/scratch").stdout) * 4096
    box.exec("fallocate", "-l", str(free - size * 15 // 100), f"/scratch/filling-{to_devices}")
    box.wait_until(partial(has_grown, box, to_devices), "a growth", seconds=90)


def live(box: Box) -> None:
    """It is installed, mounted and watched, and grows when it is filled, also after a reboot."""
    wait_for_cloud_init(box)
    assert "status: done" in box.exec("cloud-init", "status", "--long").stdout
    box.wait_until(lambda: state(box) == "active", "the service")
    [volume] = volumes(box)
    assert (volume.size_gib, volume.encrypted) == (20, True)
    grow(box, to_devices=2)
    box.reboot(renumber=True)
    box.wait_until(lambda: state(box) == "active", "the service after the boot")
    assert devices(box) >= 2
    grow(box, to_devices=devices(box) + 1)
    assert box.exec("ebs-autoscale", "status").returncode == 0
    assert box.failed_units == []


def test_the_whole_life(
    make_box: MakeBox, server: HttpsServer, trusted: dict[str, Path], release: Path
) -> None:
    """With nothing but the release, and beside another part, which runs when all is ready."""
    userdata = multipart(with_settings(USERDATA, **settings(release)), ANOTHER)
    box = make_box(user_data=userdata, folders=trusted, https_port=server.port)
    live(box)
    assert server.sent_bytes == release.stat().st_size
    assert box.read("/root/another") == "by write_files"
    assert box.read("/root/another-ran") == "btrfs\n"


def test_amazon_linux_2023(
    make_box: MakeBox, server: HttpsServer, trusted: dict[str, Path], release: Path
) -> None:
    """An older python3, no apt, and no btrfs-progs: dnf brings one package, and a URL the other."""
    box = make_box(folders=trusted, https_port=server.port)
    box.exec("mv", "/usr/bin/python3.11", "/usr/bin/btrfs", "/usr/sbin/mkfs.btrfs", "/usr/lib/box")
    box.exec("sh", "-c", "rm /usr/bin/python3 /usr/bin/apt* /usr/bin/dpkg* /etc/os-release")
    box.write("/etc/os-release", OS_RELEASE)
    box.write(
        "/etc/cloud/cloud.cfg.d/99-zz.cfg",
        "system_info: {distro: amazon}\npreserve_hostname: true\n",
    )
    box.write("/usr/bin/python3", PYTHON_3_9, 0o755)
    box.write("/usr/bin/dnf", DNF, 0o755)
    (server.folder / "btrfs.box.static").write_bytes(BTRFS_BOX)
    btrfs = {
        "BTRFS_URL": f"{HTTPS}/btrfs.box.static",
        "BTRFS_SHA256": sha256(BTRFS_BOX).hexdigest(),
    }
    userdata = with_settings(USERDATA, **settings(release), **btrfs)
    box.write("/var/lib/cloud/seed/nocloud/user-data", userdata)
    box.write("/var/lib/cloud/seed/nocloud/meta-data", "instance-id: i-amazon-linux\n")
    box.exec("rm", "/etc/cloud/cloud-init.disabled")
    box.shut_down()
    box.boot(to_the_end=False)
    live(box)
    assert box.read("/root/dnf-calls") == "-q -y install python3.11\n"
    assert server.sent_bytes == release.stat().st_size + len(BTRFS_BOX)


def test_a_failed_installation_is_seen(make_box: MakeBox) -> None:
    """As shipped: the reason is in cloud-init's status, its log and the journal; it boots."""
    box = make_box(user_data=multipart(ANOTHER + BOOTCMD, USERDATA))
    wait_for_cloud_init(box)
    status = box.exec("cloud-init", "status", "--long", check=False).stdout
    assert "status: error" in status
    for said in (
        status,
        box.read("/var/log/cloud-init-output.log"),
        box.journal("-u", "cloud-final"),
    ):
        assert any("URL is" in line for line in said.splitlines())
    assert box.exec("systemctl", "is-active", "multi-user.target").stdout.strip() == "active"
    assert not box.has("/opt/ebs-autoscale")
    assert not volumes(box)
    # Another part that comes before loses nothing.
    assert box.read("/root/another-ran") == "none\n"
    assert box.has("/root/another-booted")


MERGE = """\
import sys
from unittest.mock import Mock
from cloudinit.handlers.cloud_config import CloudConfigPartHandler
from cloudinit.safeyaml import dumps
handler = CloudConfigPartHandler(Mock())
handler.cloud_buf = {}
for path in sys.argv[1:]:
    with open(path) as part:
        handler._merge_part(part.read(), {})
print(dumps(handler.cloud_buf))
"""


def test_cloud_init_accepts_it(box: Box) -> None:
    """The user data match cloud-init's schema, and its merging loses nothing in either order."""
    box.write("/root/ours.yaml", USERDATA)
    done = box.exec("cloud-init", "schema", "--config-file", "/root/ours.yaml")
    assert "Valid" in done.stdout
    another = ANOTHER + "packages: [jq]\n"
    box.write("/root/another.yaml", another)
    box.write("/root/booting.yaml", f"{another}{BOOTCMD}")
    box.write("/root/merging.yaml", f"{another}{BOOTCMD}{MERGE_HOW}\n")
    for order in ("ours another", "another ours", "booting ours", "ours merging"):
        parts = [f"/root/{name}.yaml" for name in order.split()]
        merged = yaml.safe_load(box.exec("python3", "-c", MERGE, *parts).stdout)
        for part in parts:
            for key, value in yaml.safe_load(box.read(part)).items():
                assert key == "merge_how" or all(each in merged[key] for each in value), order
