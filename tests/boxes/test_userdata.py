"""User data alone install the program; the filesystem grows and survives reboots."""

from collections.abc import Iterator
from functools import partial
from hashlib import sha256
from pathlib import Path

import pytest

from tests.boxes.box import HTTPS, Box
from tests.boxes.conftest import MakeBox
from tests.boxes.seen import devices, state, volumes
from tests.https import HttpsServer
from tests.release import built
from tests.userdata import USERDATA, with_settings

pytestmark = pytest.mark.kernel


@pytest.fixture
def server(tmp_path: Path) -> Iterator[HttpsServer]:
    """A server outside the box."""
    with HttpsServer(tmp_path) as server:
        yield server


@pytest.fixture
def trusted(server: HttpsServer, tmp_path: Path) -> dict[str, Path]:
    """The folders of a box that trusts the server."""
    folder = tmp_path / "trusted"
    folder.mkdir()
    (folder / "authority.crt").write_bytes(server.authority.read_bytes())
    (folder / "cloud.conf").write_text(
        "[Service]\nEnvironment=SSL_CERT_FILE=/etc/tests-trust/authority.crt\n"
    )
    return {
        "etc/tests-trust": folder,
        "etc/systemd/system/cloud-final.service.d": folder,
    }


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


def test_the_whole_life(
    make_box: MakeBox, server: HttpsServer, trusted: dict[str, Path], release: Path
) -> None:
    """It is installed, mounted and watched; it grows when filled, also after reboots."""
    userdata = with_settings(USERDATA, **settings(release))
    box = make_box(user_data=userdata, folders=trusted, https_port=server.port)
    wait_for_cloud_init(box)
    assert "status: done" in box.exec("cloud-init", "status", "--long").stdout
    assert "/scratch" in box.exec("findmnt", "-no", "TARGET", "-t", "btrfs").stdout
    box.wait_until(lambda: state(box) == "active", "the service")
    [volume] = volumes(box)
    assert (volume.size_gib, volume.encrypted) == (20, True)
    assert server.sent_bytes == release.stat().st_size
    for count in (2, 3):
        grow(box, to_devices=count)
        before = devices(box)
        box.reboot(renumber=True)
        box.wait_until(lambda: state(box) == "active", "the service after the boot")
        assert devices(box) >= before
    assert box.exec("ebs-autoscale", "status").returncode == 0
    assert box.failed_units == []


def test_a_failed_installation_is_seen(make_box: MakeBox) -> None:
    """As shipped: the reason is in cloud-init's status, its log and the journal; it boots."""
    box = make_box(user_data=USERDATA)
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


def test_cloud_init_accepts_it(box: Box) -> None:
    """The user data match cloud-init's schema."""
    box.write("/root/userdata.yaml", USERDATA)
    done = box.exec("cloud-init", "schema", "--config-file", "/root/userdata.yaml")
    assert "Valid" in done.stdout
