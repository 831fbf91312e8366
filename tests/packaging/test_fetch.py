"""The script in the user data, run directly: what it fetches, refuses, replaces and leaves."""

import fcntl
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from stat import S_IWOTH

import pytest

from release.archives import Entry, tar_gz
from tests.https import HttpsServer
from tests.system.bench import until
from tests.userdata import script, with_settings

# Tells what it was called with, and the version of the release that it is in.
SETUP = """\
#!/bin/sh
folder=${0%/*}
echo "$(cat "$folder/version") $(basename "$folder") $*" >>"$ROOT/calls"
[ ! -e "$ROOT/before-setup" ] || . "$ROOT/before-setup"
"""


class Host:
    """Folders that stand for those of a host, and the script with its settings."""

    def __init__(self, root: Path, server: HttpsServer) -> None:
        self.root, self.server = root, server
        self.app = root / "opt/ebs-autoscale"
        self.settings: dict[str, str] = {}
        self.bin = root / "bin"
        self.bin.mkdir()
        self.offer("1.0")

    def offer(self, version: str, *, setup: str = SETUP) -> str:
        """Have a release with this setup on the server, and in the settings; returns its hash."""
        files = {"version": Entry(version.encode()), "setup": Entry(setup.encode(), 0o755)}
        inside = {f"ebs-autoscale/{name}": entry for name, entry in files.items()}
        return self.serve(f"{version}.tar.gz", tar_gz(inside, epoch=0))

    def serve(self, name: str, content: bytes) -> str:
        """Have a file on the server, and in the settings; returns its hash."""
        (self.server.folder / name).write_bytes(content)
        digest = sha256(content).hexdigest()
        self.settings |= {"URL": self.url(name), "SHA256": digest}
        return digest

    def url(self, name: str) -> str:
        """The address of a file on the server."""
        return f"https://127.0.0.1:{self.server.port}/{name}"

    def start(self, *prefix: str) -> "subprocess.Popen[str]":
        """Start the script, by the path that cloud-init runs."""
        constants = {
            "APP": f"Path({str(self.app)!r})",
            "PACKAGED": f"Path({str(self.root / 'packaged')!r})",
            "LOCK": f"Path({str(self.root / 'lock')!r})",
            "CLOUD": f"Path('{self.root}/var/lib/cloud')",
            "TRIES": 3,
            "SECONDS_BETWEEN": 0.01,
            "SECONDS_FOR_A_TRY": 0.3,
            "BYTES_MAX": 1024**2,
        }
        text = with_settings(script(), **self.settings)
        for name, value in constants.items():
            text, count = re.subn(rf"(?m)^{name} = .*$", f"{name} = {value}", text)
            assert count == 1
        path = self.root / "var/lib/cloud/scripts/per-instance/ebs-autoscale-install"
        path.parent.mkdir(parents=True, exist_ok=True)
        (self.root / "var/lib/cloud/instance/scripts").mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        env = {
            "PATH": f"{self.bin}:/usr/sbin:/usr/bin:/sbin:/bin",
            "SSL_CERT_FILE": str(self.server.authority),
            "ROOT": str(self.root),
        }
        return subprocess.Popen(
            [*prefix, str(path)],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            umask=0,
        )

    def run(self, *prefix: str) -> tuple[int, str]:
        """Run the script to its end: its status, and what it said."""
        with self.start(*prefix) as process:
            said, _ = process.communicate(timeout=60)
            return process.returncode, said

    @property
    def calls(self) -> list[str]:
        """The calls of setup: version, folder, arguments."""
        path = self.root / "calls"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def version(self) -> str:
        """The release that is installed."""
        path = self.app / "version"
        return path.read_text() if path.exists() else ""

    @property
    def is_clean(self) -> bool:
        """Whether nothing but the installed release is there."""
        opt = self.app.parent
        return not opt.exists() or {path.name for path in opt.iterdir()} <= {self.app.name}

    def refuses(self, *words: str, prefix: tuple[str, ...] = ()) -> None:
        """Check that it fails with one line, also in cloud-init's status, and leaves nothing."""
        before = self.version
        status, said = self.run(*prefix)
        assert status == 1
        assert "Traceback" not in said
        last = said.splitlines()[-1]
        assert last.startswith("ebs-autoscale-install: FAILED: ")
        assert not [word for word in words if word not in last], last
        (told,) = (self.root / "var/lib/cloud/instance/scripts").iterdir()
        assert told.name.replace("|", "/").startswith(last.replace(" FAILED:", "")[:150])
        assert os.access(told, os.X_OK)
        assert (self.version, self.is_clean) == (before, True)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpsServer]:
    """One for all."""
    with HttpsServer(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def host(tmp_path: Path, server: HttpsServer) -> Host:
    """A host without the program, to which version 1.0 is offered."""
    server.asked.clear()
    return Host(tmp_path, server)


def test_a_first_run(host: Host) -> None:
    """What the host lacks is installed before the release is in place."""
    host.settings |= {"MOUNTPOINT": "/data", "SIZE": "5GiB", "INIT_OPTIONS": "--mode 1777"}
    assert host.run()[0] == 0
    assert host.calls == [
        "1.0 ebs-autoscale ",
        "1.0 ebs-autoscale /data --size 5GiB --mode 1777",
    ]
    assert (host.version, host.is_clean) == ("1.0", True)
    # Whatever the umask is.
    assert not [path for path in host.root.rglob("opt/**/*") if path.stat().st_mode & S_IWOTH]


def test_a_second_run_fetches_nothing(host: Host, server: HttpsServer) -> None:
    """It sets up again, which is safe."""
    host.run()
    assert host.run()[0] == 0
    assert server.asked == {"/1.0.tar.gz": 1}
    assert len(host.calls) == 3


def test_an_upgrade_and_a_way_back(host: Host) -> None:
    """Another URL and hash replace the whole release; what is open stays readable."""
    first = dict(host.settings)
    host.run()
    with (host.app / "version").open() as running:
        host.offer("2.0")
        assert host.run()[0] == 0
        assert running.read() == "1.0"
    assert (host.version, host.is_clean) == ("2.0", True)
    host.settings = first
    assert host.run()[0] == 0
    assert (host.version, host.is_clean) == ("1.0", True)


OTHERS = {
    "make install": ("opt/ebs-autoscale/made-by-install", "`make uninstall`"),
    "an older make install": ("opt/ebs-autoscale/pyvenv.cfg", "`make uninstall`"),
}


@pytest.mark.parametrize(("name", "words"), OTHERS.values(), ids=OTHERS)
def test_it_replaces_nothing_of_others(host: Host, name: str, words: str) -> None:
    """What `make uninstall` would remove stays; nothing is fetched."""
    path = host.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    host.refuses(words)
    assert path.exists()
    assert not host.server.asked


def test_it_replaces_nothing_of_a_package(host: Host) -> None:
    """The older script has a link of the same name, to elsewhere."""
    packaged = host.root / "packaged"
    packaged.symlink_to(host.app / "bin/ebs-autoscale")
    host.refuses("remove the package")
    assert not host.server.asked
    packaged.unlink()
    packaged.symlink_to("/usr/local/amazon-ebs-autoscale/bin/ebs-autoscale")
    assert host.run()[0] == 0


def test_killed_between_two_renames(host: Host) -> None:
    """Where two folders cannot be exchanged, the installed release is found again."""
    host.run()
    left = host.app.parent / ".ebs-autoscale-killed"
    left.mkdir()
    host.app.rename(left / "old")
    host.settings |= {"URL": host.url("missing.tar.gz"), "SHA256": "0" * 64}
    assert host.run()[0] == 1
    assert (host.version, host.is_clean) == ("1.0", True)


def test_nobody_else_can_hold_the_lock(host: Host) -> None:
    """Everybody who can open a file can lock it."""
    host.run()
    assert (host.root / "lock").stat().st_mode & 0o777 == 0o600


def test_a_setting_without_quotes(host: Host) -> None:
    """The shell takes its second word for a program; it does not go on without it."""
    host.settings["INIT_OPTIONS"] = "--mode' 1777'"
    status, said = host.run()
    assert status != 0
    assert "1777" in said
    assert not host.calls


def test_hashes_of_two_architectures(host: Host) -> None:
    """The file may have any of them, in upper case too."""
    host.settings["SHA256"] = f"{'0' * 64} {host.settings['SHA256'].upper()}"
    assert host.run()[0] == 0


def test_a_server_that_answers_late(host: Host, server: HttpsServer) -> None:
    """It tries again."""
    host.settings["URL"] += "?late"
    assert host.run()[0] == 0
    assert server.asked == {"/1.0.tar.gz?late": 3}


def test_redirects(host: Host) -> None:
    """Those of a release page are followed."""
    host.settings["URL"] = host.url(f"302/{host.settings['URL']}")
    assert host.run()[0] == 0


@pytest.mark.kernel
def test_a_static_btrfs(host: Host) -> None:
    """Hosts without mkfs.btrfs get it; others do not fetch it."""
    settings = dict(host.settings)
    digest = host.serve("btrfs.box.static", b"an executable")
    host.settings = settings | {"BTRFS_URL": host.url("btrfs.box.static"), "BTRFS_SHA256": digest}
    for tool in ("timeout", "python3", "cat", "basename", "wc"):
        (host.bin / tool).symlink_to(f"/usr/bin/{tool}")
    hide = "for each in /usr/sbin /usr/local/sbin; do mount -t tmpfs none $each; done"
    without = ("unshare", "--mount", "sh", "-c", f'{hide}; PATH={host.bin}; exec "$0"')
    assert host.run(*without)[0] == 0
    assert [call.split()[2] for call in host.calls] == ["--btrfs", "--btrfs"]
    (host.bin / "mkfs.btrfs").symlink_to("/bin/true")
    assert host.run(*without)[0] == 0
    assert "--btrfs" not in host.calls[-1]


REFUSED = {
    "plain http": ({"URL": "http://127.0.0.1/1.0.tar.gz"}, ["URL is", "https://"]),
    "a file": ({"URL": "file:///1.0.tar.gz"}, ["URL is", "https://"]),
    "no URL": ({"URL": ""}, ["URL is ''", "https://"]),
    "no host": ({"URL": "https:///1.0.tar.gz"}, ["cannot fetch", "no host"]),
    "no hash": ({"SHA256": ""}, ["SHA256 is ''", "64"]),
    "half a hash": ({"SHA256": "0123abcd"}, ["SHA256 is '0123abcd'", "64"]),
    "a hash of another kind": ({"SHA256": "sha512:" + "0" * 64}, ["SHA256 is", "64"]),
    "another hash": ({"SHA256": "0" * 64}, ["/1.0.tar.gz", "0" * 64]),
    "a btrfs by http": ({"BTRFS_URL": "http://127.0.0.1/b"}, ["BTRFS_URL is", "https://"]),
    "a btrfs without a hash": ({"BTRFS_URL": "https://127.0.0.1/b"}, ["BTRFS_SHA256 is"]),
}


@pytest.mark.parametrize(("settings", "words"), REFUSED.values(), ids=REFUSED)
def test_settings_that_are_refused(host: Host, settings: dict[str, str], words: list[str]) -> None:
    """The line names the setting, or the file and both hashes."""
    host.settings |= settings
    host.refuses(*words)


ODD_ANSWERS = {
    "missing": ("missing.tar.gz", "HTTP 404", 1),
    "short": ("1.0.tar.gz?short", "the connection ended after", 3),
    "garbage": ("1.0.tar.gz?garbage", "cannot fetch", 3),
    "hang": ("1.0.tar.gz?hang", "longer than 0.3 s", 3),
    "slow": ("1.0.tar.gz?slow", "longer than 0.3 s", 3),
    "to http": ("302/http://127.0.0.1/1.0.tar.gz", "not https", 1),
    "to a file": ("302/file:///etc/passwd", "not allowed", 1),
    "in circles": ("302/", "infinite loop", 5),
}


@pytest.mark.parametrize(("name", "word", "tries"), ODD_ANSWERS.values(), ids=ODD_ANSWERS)
def test_servers_that_fail(host: Host, name: str, word: str, tries: int) -> None:
    """It gives up after some tries, or at once where another would end like this one."""
    host.settings["URL"] = host.url(name)
    host.refuses(host.url(name), word)
    assert host.server.asked.total() == tries


def test_a_server_that_is_down_or_not_trusted(host: Host) -> None:
    """The reason is that of the system."""
    url, host.settings["URL"] = host.settings["URL"], "https://127.0.0.1:9/1.0.tar.gz"
    host.refuses("https://127.0.0.1:9/1.0.tar.gz", "refused")
    host.settings["URL"] = url.replace("127.0.0.1", "localhost")
    for told in (host.root / "var/lib/cloud/instance/scripts").iterdir():
        told.unlink()
    host.refuses("certificate")


def test_a_body_without_an_end(host: Host) -> None:
    """More than any release has is not read."""
    host.serve("large.tar.gz", b"\0" * (1024**2 + 1))
    host.refuses("large.tar.gz is larger than 1 MiB")


CONTENTS = {
    "text": b"<html>Sign in</html>",
    "empty": b"",
    "half": tar_gz({"ebs-autoscale/setup": Entry(os.urandom(4096), 0o755)}, epoch=0)[:2048],
    "another tree": tar_gz({"README": Entry(b"another")}, epoch=0),
    "no setup": tar_gz({"ebs-autoscale/bin/ebs-autoscale": Entry(b"", 0o755)}, epoch=0),
    "above": tar_gz({"../ebs-autoscale/setup": Entry(b"#!/bin/sh\n", 0o755)}, epoch=0),
}


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_a_file_that_is_no_release(host: Host, content: bytes) -> None:
    """Also with the right hash; what is installed stays."""
    host.run()
    host.serve("odd.tar.gz", content)
    host.refuses("odd.tar.gz")
    assert (host.version, (host.app / "setup").read_text()) == ("1.0", SETUP)


def test_a_setup_that_fails(host: Host) -> None:
    """What it says last is the reason; an upgrade that this host cannot run replaces nothing."""
    host.run()
    host.offer("2.0", setup=f"{SETUP}\necho 'ebs-autoscale setup: no Python'; echo more; exit 5\n")
    host.refuses("ebs-autoscale setup: no Python")
    assert host.version == "1.0"


@pytest.mark.kernel
@pytest.mark.parametrize(
    "mount", ["mount -t tmpfs -o size=64k none", "mount -t tmpfs -o ro none"], ids=["full", "ro"]
)
def test_a_place_that_takes_nothing(host: Host, mount: str) -> None:
    """A full or read-only /opt."""
    host.serve(
        "1.0.tar.gz", tar_gz({"ebs-autoscale/setup": Entry(os.urandom(99999), 0o755)}, epoch=0)
    )
    host.app.parent.mkdir()
    argv = ("unshare", "--mount", "sh", "-c", f'{mount} {host.app.parent}; exec "$0"')
    host.refuses(str(host.app.parent), "pace" if "size" in mount else "Read-only", prefix=argv)


@pytest.mark.parametrize("call", [1, 2, 3])
def test_it_completes_after_a_kill(host: Host, call: int) -> None:
    """Whenever: at a setup of the first run or of an upgrade."""
    if call == 3:
        host.run()
        host.offer("2.0")
    wanted = host.settings["URL"]
    (host.root / "before-setup").write_text(
        f'[ "$(wc -l <"$ROOT/calls")" != {call} ] || {{ kill -9 $PPID; exit 1; }}\n'
    )
    assert host.run()[0] not in (0, 1)
    (host.root / "before-setup").unlink()
    assert host.run()[0] == 0
    assert host.is_clean
    assert wanted.endswith(f"{host.version}.tar.gz")


def test_two_runs_at_once(host: Host, server: HttpsServer) -> None:
    """The second waits, and finds everything done."""
    lock = host.root / "lock"
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with host.start() as first, host.start() as second:
            until(lambda: _waiting_for(lock) == 2, "both wait")
            assert not host.app.exists()
            fcntl.flock(held, fcntl.LOCK_UN)
            assert (first.wait(60), second.wait(60)) == (0, 0)
    assert server.asked == {"/1.0.tar.gz": 1}
    assert len(host.calls) == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_ends_it_early(host: Host, number: signal.Signals) -> None:
    """When its hour is over, or at Ctrl-C, it says so, and cleans up."""
    host.settings["URL"] += "?hang"
    with host.start() as process:
        until(lambda: host.server.asked.total() > 0, "it fetches")
        process.send_signal(number)
        said, _ = process.communicate(timeout=20)
    assert "FAILED: it was stopped" in said.splitlines()[-1]
    assert process.returncode != 0
    assert host.is_clean


def _waiting_for(lock: Path) -> int:
    inode = f":{lock.stat().st_ino} "
    lines = Path("/proc/locks").read_text().splitlines()
    return sum("->" in line and inode in line for line in lines)
