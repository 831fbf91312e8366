"""A host of containers: multi-part user data mount the filesystem before anything runs on it."""

import re
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from tests.batch_mime import text
from tests.boxes.box import HTTPS, Box
from tests.boxes.conftest import MakeBox
from tests.boxes.seen import state, volumes
from tests.https import HttpsServer
from tests.release import built
from tests.userdata import with_settings

pytestmark = pytest.mark.kernel

# Stands in for Docker, containerd and the ECS agent.
DAEMON = """\
#!/bin/sh
log() { echo "$1 $NAME" >>/var/log/daemons; }
data=/var/lib/$NAME
[ "$NAME" = ecs ] || { mkdir -p $data && echo start >>$data/starts; }
trap 'log stop; exit 0' TERM
log start
systemd-notify --ready
sleep infinity & wait
"""
SERVICE = """\
[Unit]
{}
[Service]
Type=notify
NotifyAccess=all
Environment=NAME=%p
ExecStart=/usr/local/sbin/daemon
"""
# As the packages of Amazon Linux order them.
UNITS = {
    "containerd.service": SERVICE.format("After=local-fs.target"),
    "docker.socket": "[Socket]\nListenStream=/run/docker.sock\n",
    "docker.service": SERVICE.format(
        "After=docker.socket containerd.service\nWants=containerd.service\nRequires=docker.socket"
    ),
    "ecs.service": SERVICE.format(
        "After=docker.service cloud-final.service\nRequires=docker.service"
    ),
    "multi-user.target.d/daemons.conf": "[Unit]\nWants=docker.service ecs.service\n",
    # Debian's is ordered after multi-user.target, Amazon's is not.
    "cloud-final.service": """\
[Unit]
After=network-online.target cloud-config.service docker.service
Wants=network-online.target cloud-config.service
[Service]
Type=oneshot
Environment=SSL_CERT_FILE=/usr/local/share/trust/authority.pem
ExecStart=/usr/bin/cloud-init modules --mode=final
RemainAfterExit=yes
TimeoutSec=0
KillMode=process
StandardOutput=journal+console
""",
}
# As AWS Batch appends its own.
OTHER_PART = """
--==EBS-AUTOSCALE==
Content-Type: text/x-shellscript; charset="us-ascii"

#!/bin/sh
mkdir -p /etc/ecs
echo ECS_CLUSTER=batch >>/etc/ecs/ecs.config

--==EBS-AUTOSCALE==--
"""

INSTALL = "/usr/local/sbin/ebs-autoscale-install"
STARTS = ["start containerd", "start docker", "start ecs"]
STOPS = ["stop ecs", "stop docker", "stop containerd"]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[HttpsServer]:
    """A server outside the box."""
    with HttpsServer(tmp_path) as server:
        yield server


def boot(
    make_box: MakeBox, server: HttpsServer, release: Path, folder: Path, **settings: str
) -> Box:
    """Boot a host of containers with these user data, and wait for cloud-init."""
    (server.folder / release.name).write_bytes(release.read_bytes())
    program = folder / "sbin/daemon"
    program.parent.mkdir()
    program.write_text(DAEMON)
    program.chmod(0o755)
    for name, unit in UNITS.items():
        path = folder / "units" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(unit)
    (folder / "trust").mkdir()
    (folder / "trust/authority.pem").write_bytes(server.authority.read_bytes())
    image = folder / "docker/overlay2/layer"
    image.mkdir(parents=True)
    (image / "file").write_text("an image\n")
    chosen = {"URL": f"{HTTPS}/{release.name}", "SHA256": sha256(release.read_bytes()).hexdigest()}
    userdata = with_settings(text(), **chosen, **settings)
    userdata = userdata.removesuffix("\n--==EBS-AUTOSCALE==--\n") + OTHER_PART
    box = make_box(
        user_data=userdata,
        https_port=server.port,
        folders={
            "usr/local/lib/systemd/system": folder / "units",
            "usr/local/sbin": folder / "sbin",
            "usr/local/share/trust": folder / "trust",
            "var/lib/docker": folder / "docker",
        },
    )
    box.exec("cloud-init", "status", "--wait", check=False, timeout=300)
    box.wait_until(lambda: state(box, "ecs.service") == "active", "the ECS agent")
    return box


def daemons(box: Box) -> list[str]:
    """What the daemons have told: starts and stops."""
    return box.read("/var/log/daemons").splitlines()


def test_a_host_of_batch(
    make_box: MakeBox, server: HttpsServer, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The ECS agent starts last; Docker finds its data on the filesystem, also after a reboot.

    After a failed installation, and after kill -9, everything is started again.
    """
    (release,) = built(tmp_path_factory).glob("*-linux-x86_64.tar.gz")
    (tmp_path / "host").mkdir()
    box = boot(make_box, server, release, tmp_path / "host")
    assert "status: done" in box.exec("cloud-init", "status", "--long").stdout
    first = ["start containerd", "start docker", "stop docker", "stop containerd"]
    assert daemons(box) == first + STARTS
    assert box.read("/etc/ecs/ecs.config") == "ECS_CLUSTER=batch\n"
    assert box.exec("stat", "-c", "%a", "/scratch").stdout == "1777\n"
    for name in ("docker", "containerd"):
        fields = box.exec("findmnt", "-no", "SOURCE,FSTYPE", f"/var/lib/{name}").stdout
        assert re.fullmatch(rf"/dev/loop\d+\[/.containers/{name}\] +btrfs\n", fields)
        assert not box.has(f"/var/lib/{name}.moved")
    assert box.read("/var/lib/docker/overlay2/layer/file") == "an image\n"
    # A second run, as an operator may do it, disturbs nobody.
    box.exec(INSTALL, timeout=120)
    assert daemons(box) == first + STARTS

    containers = ("/opt/ebs-autoscale/containers", "leave", "/other")
    failed = box.exec(*containers, "sh", "-c", "exit 4", check=False)
    assert failed.returncode == 4
    box.wait_until(lambda: daemons(box)[7:] == STOPS + STARTS, "the starts after a failure")
    box.write("/root/killer", "#!/bin/sh\nkill -9 $PPID; sleep 60\n", 0o755)
    killed = box.exec(*containers, "/root/killer", check=False)
    assert "it was killed" in killed.stderr
    box.wait_until(lambda: daemons(box)[13:] == STOPS + STARTS, "the starts after kill -9")

    box.reboot()
    box.wait_until(lambda: state(box, "ecs.service") == "active", "the ECS agent")
    assert daemons(box)[-3:] == STARTS
    # All that Docker has ever written, before and after it was moved.
    assert len(box.read("/scratch/.containers/docker/starts").split()) == 5
    assert box.exec("stat", "-c", "%a", "/scratch").stdout == "1777\n"
    assert len(volumes(box)) == 1
    assert box.failed_units == []
