"""`containers` of a release: what runs containers is stopped, moved, and started again.

In folders of its own instead of /etc, /run and /var/lib, with a stand-in for systemd;
tests/boxes/test_containers.py has a real one.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from ec2_sandbox.devices.loop import LoopDevice

pytestmark = pytest.mark.kernel

SCRIPT = Path(__file__).parents[2] / "release/files/containers"

SYSTEMCTL = """\
#!/bin/sh
# Units are files with what `show` prints. Docker is started with its mount, as fstab says.
cd "$HOME/units" || exit
echo "$*" >>"$HOME/calls"
unit() { cat "$1" 2>/dev/null || echo "LoadState=not-found ActiveState=inactive Job="; }
set_state() { sed -i "s/ActiveState=[a-z]*/ActiveState=$2/; s/Job=.*/Job=/" "$1"; }
case "$*" in
    *"property=LoadState"*) for last; do :; done; unit "$last" ;;
    *"property=RequiredBy"*) for last; do :; done; cat "$last.dependents" 2>/dev/null ;;
    *is-active*) for last; do :; done; unit "$last" | grep -q ActiveState=active ;;
    *" cat "*) for last; do :; done; [ -e "$last" ] ;;
    stop*) [ ! -e "$2.stubborn" ] && set_state "$2" inactive ;;
    "--no-block start "*)
        shift 2
        ! grep -qs " /var/lib/docker none bind" /etc/fstab || mountpoint -q /var/lib/docker ||
            /bin/mount /var/lib/docker
        for each; do set_state "$each" active; done ;;
esac
"""
# PID 1 passes on no environment, and runs ExecStopPost= however the unit has ended.
SYSTEMD_RUN = """\
#!/bin/sh
echo "$*" >>"$HOME/calls"
while :; do
    case $1 in
        --property=ExecStopPost=*) post=${1#*=*=}; shift ;;
        --*) shift ;;
        *) break ;;
    esac
done
env -i PATH="$PATH" HOME="$HOME" "$@"
status=$?
$post
exit $status
"""
# Kills the script before its N-th change.
DEADLY = """\
#!/bin/sh
count=$(($(cat "$HOME/steps" 2>/dev/null) + 1))
echo $count >"$HOME/steps"
[ "$count" != "$(cat "$HOME/deadly" 2>/dev/null)" ] || { kill -9 $PPID; exit 1; }
exec /bin/NAME "$@"
"""
CHANGES = ("cp", "mv", "mkdir", "mount", "rm")


class Host:
    """A machine that has Docker with an image, and runs it and the ECS agent."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lib, self.disk, self.scratch = folder / "lib", folder / "disk", folder / "scratch"
        for name in (
            "etc",
            "run/systemd/system",
            "units",
            "bin",
            "lib",
            "disk",
            "scratch",
            "bundle",
        ):
            (folder / name).mkdir(parents=True)
        self.disk.chmod(0o1777)
        self.fstab = folder / "etc/fstab"
        self.fstab.write_text("# no line end")
        for name, text in (("systemctl", SYSTEMCTL), ("systemd-run", SYSTEMD_RUN)):
            self.program(name, text)
        for unit in ("docker.service", "docker.socket", "ecs.service"):
            self.unit(unit, "active")
        image = self.lib / "docker/overlay2/layer"
        image.mkdir(parents=True)
        (image / "file").write_text("an image")
        os.link(image / "file", image / "hard link")
        (image / "sparse").touch()
        os.truncate(image / "sparse", 64 * 1024**2)
        os.chown(image / "file", 1234, 1234)
        os.setxattr(image, "trusted.overlay.opaque", b"y")
        self.mount = f"mount --bind {self.disk} {self.scratch}"

    def program(self, name: str, text: str) -> None:
        """Put a program into the PATH."""
        path = self.folder / "bin" / name
        path.write_text(text)
        path.chmod(0o755)

    def unit(self, name: str, state: str, *, load: str = "loaded", job: str = "") -> None:
        """Have a unit in this state."""
        shown = f"LoadState={load} ActiveState={state} Job={job}\n"
        (self.folder / "units" / name).write_text(shown)

    def run(
        self,
        *command: str,
        how: str = "move",
        before: str = "",
        after: str = "",
        **environment: str,
    ) -> "subprocess.CompletedProcess[str]":
        """Run it with COMMAND, by default a mount of the new filesystem, in a mount namespace."""
        (self.folder / "calls").write_text("")
        binds = (f"mount --bind {self.folder}/{a} {b}" for a, b in PLACES.items())
        script = "\n".join(
            [*binds, before, '"$@"; status=$?', after, "exit $status"],
        )
        ordered = command or tuple(self.mount.split())
        argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"]
        argv += [str(SCRIPT), how, str(self.scratch), *ordered]
        path = f"{self.folder}/bin:/usr/bin:/bin"
        return subprocess.run(
            argv,
            env={"PATH": path, "HOME": str(self.folder), "LC_ALL": "C", **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    @property
    def calls(self) -> list[str]:
        """What systemd was told to stop and to start."""
        calls = (self.folder / "calls").read_text().splitlines()
        return [call for call in calls if call.startswith(("--no-block start ", "stop "))]

    def assert_running(self, *units: str) -> None:
        """These units run."""
        for unit in units or ("docker.service", "docker.socket", "ecs.service"):
            assert "ActiveState=active" in (self.folder / "units" / unit).read_text(), unit

    def is_moved(self) -> bool:
        """Whether the new filesystem has the data, and nothing else has."""
        moved = is_whole(self.disk / ".containers/docker")
        assert moved != is_whole(self.lib / "docker")
        left = [
            path.name for folder in (self.lib, self.disk / ".containers") for path in ls(folder)
        ]
        assert left == ["docker", "docker"][: 1 + moved] if moved else "docker.moved" not in left
        return moved


PLACES = {"etc": "/etc", "run": "/run", "lib": "/var/lib"}


def ls(folder: Path) -> Sequence[Path]:
    """What is in a folder, if there is one."""
    return sorted(folder.iterdir()) if folder.exists() else []


def is_whole(data: Path) -> bool:
    """Whether a folder has the image, with all that cp may lose."""
    layer = data / "overlay2/layer"
    if not layer.exists():
        return False
    file = (layer / "file").stat()
    assert (file.st_uid, file.st_ino) == (1234, (layer / "hard link").stat().st_ino)
    sparse = (layer / "sparse").stat()
    assert (sparse.st_size, sparse.st_blocks) == (64 * 1024**2, 0)
    assert os.getxattr(layer, "trusted.overlay.opaque") == b"y"
    return True


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory, where `sync` waits for nothing of the host's."""
    subprocess.run(["mount", "-t", "tmpfs", "t", str(tmp_path)], check=True)
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.fixture
def host(folder: Path) -> Host:
    """A host with Docker and the ECS agent."""
    return Host(folder)


def test_it_is_sound() -> None:
    """Shellcheck finds nothing."""
    linter = Path(sys.executable).parent / "shellcheck"
    done = subprocess.run([str(linter), str(SCRIPT)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_data_are_moved(host: Host) -> None:
    """Stopped from the top, started from the bottom; a second run stops nothing."""
    for unit, dependents in {
        "docker.service": "plugin.service containerd.service sockets.target",
        "ecs.service": "watcher.service",
        "watcher.service": "watcher.timer",
    }.items():
        (host.folder / f"units/{unit}.dependents").write_text(f"{dependents}\n")
    for unit in ("plugin.service", "watcher.service", "watcher.timer", "containerd.service"):
        host.unit(unit, "active")
    done = host.run(after="cat /var/lib/docker/overlay2/layer/file")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("an image")
    stopped = ["plugin", "watcher.timer", "watcher", "ecs", "docker.socket", "docker", "containerd"]
    names = [name if "." in name else f"{name}.service" for name in stopped]
    assert host.calls == [
        *(f"stop {name}" for name in names),
        f"--no-block start {' '.join(reversed(names))}",
    ]
    assert is_whole(host.disk / ".containers/docker")
    assert not ls(host.lib / "docker")
    assert (host.disk / ".containers").stat().st_mode & 0o777 == 0o700
    lines = host.fstab.read_text().splitlines()
    assert [line.split()[1:3] for line in lines[1:]] == [
        ["/var/lib/docker", "none"],
        ["/var/lib/containerd", "none"],
    ]
    again = host.run(
        "echo", "again", before=f"{host.mount}; mount /var/lib/docker; mount /var/lib/containerd"
    )
    assert (again.returncode, again.stdout, host.calls) == (0, "again\n", [])
    assert host.fstab.read_text().splitlines() == lines


def test_data_may_stay(host: Host) -> None:
    """With `leave` the services only wait for the filesystem; a queued start is queued again."""
    host.unit("ecs.service", "inactive", job="42")
    done = host.run(how="leave")
    assert (done.returncode, host.is_moved()) == (0, False)
    assert host.calls[0] == "stop ecs.service"
    assert host.calls[-1].split()[-1] == "ecs.service"
    assert not host.run("true", how="leave", before=host.mount).returncode
    assert host.calls == []


@pytest.mark.parametrize("unit", ["docker.service", "ecs.service"])
def test_one_that_does_not_stop(host: Host, unit: str) -> None:
    """Nothing is done, and all is started again."""
    (host.folder / f"units/{unit}.stubborn").touch()
    done = host.run()
    assert (done.returncode, host.is_moved()) == (1, False)
    assert f"cannot stop {unit}" in done.stderr
    host.assert_running()


def test_a_failed_command(host: Host) -> None:
    """Its exit status is kept, nothing is moved, and all is started again."""
    host.program("broken", "#!/bin/sh\nexit 4\n")
    done = host.run("broken")
    assert (done.returncode, host.is_moved()) == (4, False)
    host.assert_running()
    host.program("killed", "#!/bin/sh\nkill -9 $PPID\n")
    done = host.run("killed")
    assert (done.returncode, "killed" in done.stderr) == (1, True)
    host.assert_running()


def test_a_full_disk(host: Host) -> None:
    """The data stay where they are, and nothing of the copy does."""
    (host.lib / "docker/large").write_bytes(os.urandom(200_000))
    tmpfs = f"mount -t tmpfs -o size=100k,mode=1777 t {host.disk}"
    done = host.run(before=tmpfs, after=f"find {host.disk}/.containers")
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert "stays where it is" in done.stderr
    assert done.stdout.splitlines()[-1] == f"{host.disk}/.containers"
    assert host.is_moved() is False
    assert host.fstab.read_text() == "# no line end"
    host.assert_running()


def test_killed_anywhere(folder: Path) -> None:
    """Docker starts with all its data, and the next run leaves them in one place."""
    step, killed = 3, True  # before the copy there is nothing to lose
    left: list[str] = []
    while killed:
        step += 1
        host = Host(folder / str(step))
        for name in CHANGES:
            host.program(name, DEADLY.replace("NAME", name))
        (host.folder / "deadly").write_text(str(step))
        see = "cat /var/lib/docker/overlay2/layer/file; rm -f ~/deadly ~/bin/mount"
        killed = host.run(after=see).returncode != 0
        host.assert_running()
        second = host.run(before=host.mount.replace("mount", "/bin/mount", 1), after=see)
        assert second.stdout.endswith("an image"), step
        assert second.returncode == 0, second.stderr
        host.assert_running()
        assert is_whole(host.disk / ".containers/docker")
        assert [path.name for path in ls(host.disk / ".containers")].count("docker.part") == 0
        left += [path.name for path in ls(host.lib) if path.name != "docker"]
    assert step > 8
    # Between fstab and the old folder, which no one call can change together, a copy is left.
    assert len(left) <= 1


@pytest.mark.parametrize(
    ("before", "reason"),
    [
        ("mv /var/lib/docker /var/lib/other; ln -s other /var/lib/docker", "a link to other"),
        ("mount -t tmpfs t /var/lib/docker", "a filesystem of its own"),
        ("echo >>/etc/fstab; echo '/dev/sdf /var/lib/docker ext4' >>/etc/fstab", "another line"),
        ('mkdir /etc/docker; echo \'{"data-root": "/x"}\' >/etc/docker/daemon.json', "data-root"),
    ],
)
def test_an_arrangement_of_the_operator(host: Host, before: str, reason: str) -> None:
    """It is left as it is, and said to be."""
    done = host.run(before=before)
    assert done.returncode == 0, done.stderr
    assert reason in done.stdout
    assert not ls(host.disk / ".containers")
    host.assert_running()


@pytest.mark.parametrize(
    ("before", "reason"),
    [
        ("mkdir /var/lib/docker/m; mount -t tmpfs t /var/lib/docker/m", "is in use"),
        ("mount -t overlay -o lowerdir=/var/lib/docker/overlay2:/etc o ~/bundle", "is in use"),
        ("sed -i s/=loaded/=masked/ ~/units/docker.service", "docker.service is running"),
        ("mv ~/docker-starts ~/bin/cp", "docker.service is running"),
        ("mount -t tmpfs -o size=8k t /etc; tee /etc/fstab /etc/f <~/etc/fstab", "No space left"),
        ("mount -o bind,ro /etc /etc; mount -o remount,bind,ro /etc", "Read-only file system"),
    ],
)
def test_what_keeps_data_where_they_are(host: Host, before: str, reason: str) -> None:
    """Nothing is moved, no copy is left, and what ran is running."""
    active = f"echo LoadState=loaded ActiveState=active Job= >{host.folder}/units/docker.service"
    host.program("../docker-starts", f'#!/bin/sh\n{active}\nexec /bin/cp "$@"\n')
    done = host.run(before=before, after="[ ! -e /var/lib/docker/m ] || umount /var/lib/docker/m")
    assert (done.returncode, host.is_moved()) == (1, False)
    assert reason in done.stderr
    assert not ls(host.disk / ".containers")
    assert host.fstab.read_text() == "# no line end"
    host.assert_running()


def test_a_mount_that_fails(host: Host) -> None:
    """Everything is as before; the next run moves the data."""
    host.program("mount", '#!/bin/sh\n[ $# != 1 ] && exec /bin/mount "$@"\n')
    done = host.run()
    assert (done.returncode, host.is_moved()) == (1, False)
    assert not ls(host.disk / ".containers")
    assert "docker" not in host.fstab.read_text()
    host.assert_running()
    (host.folder / "bin/mount").unlink()
    assert host.run().returncode == 0
    assert is_whole(host.disk / ".containers/docker")


def test_docker_that_never_started(host: Host) -> None:
    """It finds an empty folder on the new filesystem; what is not installed is left alone."""
    subprocess.run(["rm", "-r", str(host.lib / "docker")], check=True)
    host.unit("docker.service", "inactive")
    host.unit("ecs.service", "inactive", load="masked")
    done = host.run(after="findmnt -no TARGET /var/lib/docker")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("\n/var/lib/docker\n")
    assert "/var/lib/containerd is left as it is: containerd is not installed" in done.stdout
    assert host.calls == ["stop docker.socket", "--no-block start docker.socket"]
    assert [path.name for path in ls(host.disk / ".containers")] == ["docker"]
    again = host.run("true", before=f"{host.mount}; mount /var/lib/docker")
    assert (again.returncode, host.calls) == (0, [])


def test_a_later_run(host: Host) -> None:
    """What it finds unmounted it mounts; nothing that may be the only one of its kind is lost."""
    assert host.run().returncode == 0
    host.program("mount", '#!/bin/sh\n[ $# != 1 ] && exec /bin/mount "$@"\n')
    host.program("systemctl", SYSTEMCTL.replace("/bin/mount /var/lib/docker", "true"))
    fstab = host.fstab.read_text()
    assert host.run().returncode == 1
    assert host.fstab.read_text() == fstab
    assert is_whole(host.disk / ".containers/docker")
    (host.folder / "bin/mount").unlink()
    (host.lib / "docker/new").touch()
    done = host.run()
    assert done.returncode == 0, done.stderr
    [aside] = host.lib.glob("docker.2*")
    assert (aside / "new").exists()
    assert is_whole(host.disk / ".containers/docker")


def test_what_others_could_replace(host: Host) -> None:
    """A folder of theirs is not used, nor one that they could rename: Docker runs what is in it."""
    (host.disk / ".containers").mkdir()
    os.chown(host.disk / ".containers", 1234, 1234)
    done = host.run()
    assert (done.returncode, host.is_moved()) == (1, False)
    host.disk.chmod(0o777)
    done = host.run()
    assert (done.returncode, host.is_moved()) == (1, False)
    assert "1777" in done.stderr


def test_a_folder_that_others_could_write_to(host: Host) -> None:
    """What root has made there is closed to them before anything is in it."""
    (host.disk / ".containers").mkdir()
    (host.disk / ".containers").chmod(0o777)
    assert host.run().returncode == 0
    assert (host.disk / ".containers").stat().st_mode & 0o777 == 0o700


def test_defaults_that_are_written_out(host: Host) -> None:
    """They are the usual places, in whichever quotes."""
    (host.lib / "containerd").mkdir()
    for name, text in {
        "docker/daemon.json": '{"data-root": "/var/lib/docker/"}',
        "containerd/config.toml": "version = 3\nroot = '/var/lib/containerd'\n",
    }.items():
        (host.folder / "etc" / name).parent.mkdir()
        (host.folder / "etc" / name).write_text(text)
    done = host.run()
    assert done.returncode == 0, done.stderr
    assert [path.name for path in ls(host.disk / ".containers")] == ["containerd", "docker"]


def test_subvolumes(host: Host) -> None:
    """Copies of them would be folders, which the storage driver cannot use: they stay."""
    with LoopDevice.create(128 * 1024**2, directory=host.folder) as disk:
        subprocess.run(["mkfs.btrfs", "-q", disk.node], check=True)
        layer = "/var/lib/docker/btrfs/subvolumes/layer"
        done = host.run(
            before=f"mount {disk.node} /var/lib && mkdir -p {Path(layer).parent} && "
            f"btrfs -q subvolume create {layer}",
            after=f"ls -d {layer}",
        )
    assert done.returncode == 0, done.stderr
    assert "/var/lib/docker is left as it is: it has BTRFS subvolumes" in done.stdout
    assert done.stdout.endswith("/layer\n")
    host.assert_running()


def test_an_image_of_such_a_host(host: Host) -> None:
    """It has the line of fstab, and a new filesystem: Docker begins anew on that."""
    assert host.run().returncode == 0
    subprocess.run(["rm", "-r", str(host.disk / ".containers")], check=True)
    done = host.run(after="findmnt -no TARGET /var/lib/docker")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("\n/var/lib/docker\n")
    assert host.fstab.read_text().count(" /var/lib/docker ") == 1
    host.assert_running()


def test_the_environment(host: Host) -> None:
    """The command has it as it is, and nobody else can read it."""
    value = 'a secret\'s "first"\nSECOND=$LINE %n'
    done = host.run("printenv", "CREDENTIAL", how="leave", CREDENTIAL=value)
    assert done.returncode == 0, done.stderr
    assert value in done.stdout
    assert "CREDENTIAL=" not in (host.folder / "calls").read_text()
    assert not list((host.folder / "run").glob("*environment*"))
    host.program("systemd-run", "#!/bin/sh\nexit 1\n")
    assert host.run(CREDENTIAL=value).returncode == 1
    assert not list((host.folder / "run").glob("*environment*"))


def test_data_of_another_host(host: Host) -> None:
    """What a filesystem brings along is set aside and not overwritten."""
    (host.disk / ".containers/docker").mkdir(parents=True)
    (host.disk / ".containers/docker/precious").touch()
    done = host.run()
    assert done.returncode == 0, done.stderr
    [aside] = (host.disk / ".containers").glob("docker.2*")
    assert (aside / "precious").exists()
    assert is_whole(host.disk / ".containers/docker")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "usage"),
        (["move", "/scratch"], "usage"),
        (["copy", "/scratch", "true"], "usage"),
        (["move", "/var/lib/docker", "true"], "`leave`"),
        (["move", "/a b", "true"], "escaped"),
        (["leave", "/scratch", "echo", "$HOME"], "may contain a $"),
    ],
)
def test_usage(words: list[str], said: str) -> None:
    """One line and a status, before anything is touched."""
    done = subprocess.run([SCRIPT, *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert said in done.stderr


def test_two_at_once(host: Host) -> None:
    """The second is refused, and stops nothing."""
    host.unit("ebs-autoscale-containers.service", "active")
    done = host.run()
    assert (done.returncode, host.calls) == (1, [])
    assert "another run" in done.stderr
