"""`setup` of a release: what it installs with apt, dnf or from a file, and what it refuses."""

import subprocess
from pathlib import Path
from stat import S_IWOTH

import pytest

from release.trees import FILES
from tests.release import HOST_PYTHON

pytestmark = pytest.mark.kernel

TOOLS = ("cat", "id", "install", "ln", "mv", "readlink", "rm", "sh", "touch", "uname")
# Package managers that tell what they were asked for. They have the packages in the folder `offer`.
INSTALLS = """
[ -e "$HOME/offer/$package" ] || { echo "no package $package" >&2; exit 1; }
for file in "$HOME/offer/$package"/*; do ln -sfn "$(readlink "$file")" "$HOME/bin/${file##*/}"; done
"""
APT = '#!/bin/sh\nfor package; do :; done\n[ "$package" != update ] || exit 0\n'
DNF = "#!/bin/sh\nfor package; do :; done\n"
RECORD = 'echo "$package" >>"$HOME/asked"\n'
OLD_PYTHON = "#!/bin/sh\nexit 1\n"
INIT = '#!/bin/sh\necho "$*" >>"$HOME/init"\n[ ! -e "$HOME/init-fails" ]\n'


class Host:
    """A PATH with few tools, empty folders in /usr/local, and a release."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bin = folder, folder / "bin"
        self.tree = folder / "opt/ebs-autoscale"
        for made in (self.bin, self.tree / "bin", self.tree / "lib", folder / "local/bin"):
            made.mkdir(parents=True)
        for name in TOOLS:
            (self.bin / name).symlink_to(f"/usr/bin/{name}")
        self.packaged = folder / "packaged"
        setup = (FILES / "setup").read_text()
        assert setup.count("=/usr/bin/ebs-autoscale\n") == 1
        self.write(
            "opt/ebs-autoscale/setup", setup.replace("=/usr/bin/ebs-autoscale", f"={self.packaged}")
        )
        self.write("opt/ebs-autoscale/bin/python", (FILES / "python").read_text())
        self.write("opt/ebs-autoscale/bin/ebs-autoscale", INIT)
        self.write("opt/ebs-autoscale/lib/psutil.py", "")
        self.write("bin/systemctl", "#!/bin/sh\nexit 3\n")
        self.write("bin/sleep", '#!/bin/sh\necho "$1" >>"$HOME/pauses"\n')

    def write(self, name: str, text: str) -> None:
        """Write a program."""
        path = self.folder / name
        path.unlink(missing_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def has(self, **programs: str) -> None:
        """Have programs in the PATH, each a link to another."""
        for name, target in programs.items():
            (self.bin / name.replace("_", ".")).symlink_to(target)

    def offers(self, package: str, **programs: str) -> None:
        """Have the package manager know a package with these programs."""
        folder = self.folder / "offer" / package
        folder.mkdir(parents=True)
        for name, target in programs.items():
            (folder / name.replace("_", ".")).symlink_to(target)

    def setup(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run it, as a root without a umask."""
        hide = f"mount -t tmpfs none /usr/sbin; mount --bind {self.folder}/local /usr/local"
        run = f'umask 0; PATH={self.bin} HOME={self.folder}; export HOME; exec "$@"'
        argv = ["unshare", "--mount", "sh", "-c", f"{hide}; {run}", "sh"]
        argv += [str(self.tree / "setup"), *arguments]
        return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)

    def lines(self, name: str) -> list[str]:
        """What was written to a file."""
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []

    @property
    def link(self) -> Path:
        """The program in the PATH of everybody."""
        return self.folder / "local/bin/ebs-autoscale"

    def refuses(self, *arguments: str) -> str:
        """The one line with which it ends, having set up nothing."""
        done = self.setup(*arguments)
        assert done.returncode == 1
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("ebs-autoscale")]
        assert not self.lines("init")
        return line


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A host without Python, btrfs-progs and a package manager."""
    return Host(tmp_path)


def test_a_host_that_has_all(host: Host) -> None:
    """No package manager is asked, bytecode is made, and without a mountpoint nothing else."""
    host.has(python3=HOST_PYTHON, mkfs_btrfs="/bin/true")
    assert host.setup().returncode == 0
    assert list(host.tree.rglob("*.pyc"))
    assert not [path for path in host.tree.rglob("*") if path.lstat().st_mode & S_IWOTH]
    assert not host.link.is_symlink()
    done = host.setup("/scratch", "--size", "5GiB")
    assert (done.returncode, done.stdout) == (0, "ebs-autoscale setup: /scratch is ready\n")
    assert host.lines("init") == ["init /scratch --size 5GiB"]
    assert host.link.readlink() == host.tree / "bin/ebs-autoscale"
    assert host.setup("/scratch").returncode == 0


@pytest.mark.parametrize(("name", "manager"), [("apt-get", APT), ("dnf", DNF)], ids=["apt", "dnf"])
def test_what_is_missing(host: Host, name: str, manager: str) -> None:
    """It asks for the package beside an older python3, then for btrfs-progs."""
    host.write(f"bin/{name}", manager + RECORD + INSTALLS)
    host.write("bin/python3", OLD_PYTHON)
    host.offers("python3.11", python3_11=HOST_PYTHON)
    host.offers("btrfs-progs", mkfs_btrfs="/bin/true")
    assert host.setup("/scratch").returncode == 0
    assert host.lines("asked") == ["python3.11", "btrfs-progs"]
    assert host.setup("/scratch").returncode == 0
    assert len(host.lines("asked")) == 2


# apt-get while another one updates its lists: it waits for dpkg's lock, and not for this one.
LOCKED = """
echo "$*" >>"$HOME/tries"
[ "$(grep -c update "$HOME/tries")" -gt 2 ] || {
    echo "E: Could not get lock $HOME." >&2
    exit 100
}
"""


def test_apt_is_busy(host: Host) -> None:
    """As it is when apt-daily.service runs at boot."""
    host.write("bin/apt-get", APT.replace("\n", LOCKED, 1) + RECORD + INSTALLS)
    host.has(python3=HOST_PYTHON, grep="/usr/bin/grep")
    host.offers("btrfs-progs", mkfs_btrfs="/bin/true")
    assert host.setup("/scratch").returncode == 0
    assert host.lines("pauses") == ["5", "10"]


def test_apt_was_killed(host: Host) -> None:
    """What dpkg has begun is completed before apt-get is asked again."""
    host.write(
        "bin/apt-get", APT.replace("\n", '\n[ -e "$HOME/whole" ] || exit 100\n', 1) + INSTALLS
    )
    host.write("bin/dpkg", '#!/bin/sh\n[ "$*" != "--configure -a" ] || touch "$HOME/whole"\n')
    host.has(python3=HOST_PYTHON)
    host.offers("btrfs-progs", mkfs_btrfs="/bin/true")
    assert host.setup("/scratch").returncode == 0


def test_apt_has_no_network(host: Host) -> None:
    """It does not wait for what will not change, and what apt-get says is shown."""
    host.write("bin/apt-get", "#!/bin/sh\necho 'E: no such host' >&2\nexit 100\n")
    host.has(python3=HOST_PYTHON)
    assert "cannot install btrfs-progs, see above" in host.refuses("/scratch")
    assert "E: no such host" in host.setup("/scratch").stderr
    assert not host.lines("pauses")


def test_a_python_that_is_new_enough_by_its_own_name(host: Host) -> None:
    """Where there is no package of that name."""
    host.write("bin/apt-get", APT + RECORD + INSTALLS)
    host.offers("python3", python3=HOST_PYTHON)
    host.has(mkfs_btrfs="/bin/true")
    assert host.setup("/scratch").returncode == 0
    assert host.lines("asked") == ["python3.11", "python3"]


def test_a_distribution_that_is_too_old(host: Host) -> None:
    """Its newest Python is too old."""
    host.write("bin/apt-get", APT + RECORD + INSTALLS)
    host.write("old", OLD_PYTHON)
    host.offers("python3", python3=str(host.folder / "old"))
    assert "cannot install Python 3.11 or newer" in host.refuses("/scratch")


def test_another_distribution(host: Host) -> None:
    """It names the package that a person has to install."""
    assert "python3.11, and has neither apt-get nor dnf" in host.refuses("/scratch")
    host.has(python3=HOST_PYTHON)
    assert "btrfs-progs, and has neither apt-get nor dnf" in host.refuses("/scratch")


def test_amazon_linux_without_a_static_btrfs(host: Host) -> None:
    """It names the settings."""
    host.write("bin/dnf", DNF + RECORD + INSTALLS)
    host.has(python3=HOST_PYTHON)
    line = host.refuses("/scratch")
    assert "BTRFS_URL" in line
    assert "--btrfs" in line


@pytest.mark.parametrize(
    ("package_manager", "kind", "packages"),
    [
        (APT, "xfs", ["xfsprogs", "fdisk"]),
        (APT, "ext4", ["e2fsprogs", "fdisk"]),
        (DNF, "xfs", ["xfsprogs", "util-linux"]),
    ],
)
def test_the_tools_of_another_filesystem(
    host: Host, package_manager: str, kind: str, packages: list[str]
) -> None:
    """For XFS and ext4 it installs theirs, and none for BTRFS; also if one is mounted already."""
    name = "apt-get" if package_manager is APT else "dnf"
    host.write(f"bin/{name}", package_manager + RECORD + INSTALLS)
    host.has(python3=HOST_PYTHON)
    host.offers(packages[0], **{f"mkfs_{kind}": "/bin/true"})
    host.offers(packages[1], sfdisk="/bin/true")
    assert host.setup("/scratch", "--size", "8GiB", "--filesystem", kind).returncode == 0
    assert host.lines("asked") == packages
    host.write("bin/findmnt", f"#!/bin/sh\necho {kind}\n")
    for argv in (["/scratch", f"--filesystem={kind}"], ["/scratch"]):
        assert host.setup(*argv).returncode == 0
    assert host.lines("asked") == packages
    assert host.lines("init")[0] == f"init /scratch --size 8GiB --filesystem {kind}"


def test_a_static_btrfs(host: Host) -> None:
    """It is installed under both names, without the package manager."""
    host.write("bin/dnf", DNF + RECORD + INSTALLS)
    host.write("btrfs.box.static", "#!/bin/sh\n")
    host.has(python3=HOST_PYTHON)
    assert "no such file" in host.refuses("--btrfs", f"{host.folder}/missing", "/scratch")
    assert host.setup("--btrfs", f"{host.folder}/btrfs.box.static", "/scratch").returncode == 0
    found = sorted(path.name for path in (host.folder / "local/sbin").iterdir())
    assert found == ["btrfs", "mkfs.btrfs"]
    # Also where sudo has a PATH without /usr/local.
    assert host.setup("/scratch").returncode == 0
    assert not host.lines("asked")


def test_a_release_for_another_architecture(host: Host) -> None:
    """Its binaries cannot be loaded."""
    host.has(python3=HOST_PYTHON, mkfs_btrfs="/bin/true")
    host.write("opt/ebs-autoscale/lib/psutil.py", "raise ImportError")
    assert "is this a release for " in host.refuses("/scratch")


def test_an_init_that_fails(host: Host) -> None:
    """Its exit status is that of setup; the program can be called, to find out why."""
    host.has(python3=HOST_PYTHON, mkfs_btrfs="/bin/true")
    host.write("init-fails", "")
    done = host.setup("/scratch")
    assert (done.returncode, done.stdout) == (1, "")
    assert host.link.is_symlink()


def test_the_older_script(host: Host) -> None:
    """While it is active nothing is installed; else its program is kept until `init` succeeds."""
    host.has(python3=HOST_PYTHON, mkfs_btrfs="/bin/true")
    host.link.write_text("the older script")
    host.packaged.symlink_to("/usr/local/amazon-ebs-autoscale/bin/ebs-autoscale")
    host.write("bin/systemctl", "#!/bin/sh\nexit 0\n")
    line = host.refuses("/scratch")
    assert "`systemctl disable --now ebs-autoscale`" in line
    assert not list(host.tree.rglob("*.pyc"))
    host.write("bin/systemctl", "#!/bin/sh\nexit 3\n")
    host.write("init-fails", "")
    assert host.setup("/scratch").returncode == 1
    assert host.link.read_text() == "the older script"
    assert host.packaged.is_symlink()
    (host.folder / "init-fails").unlink()
    assert host.setup("/scratch").returncode == 0
    assert host.link.readlink() == host.tree / "bin/ebs-autoscale"
    assert not host.packaged.is_symlink()


def test_a_package_is_in_the_path_already(host: Host) -> None:
    """It gets no second link, which its removal would leave."""
    host.has(python3=HOST_PYTHON, mkfs_btrfs="/bin/true")
    host.packaged.symlink_to(host.tree / "bin/ebs-autoscale")
    assert host.setup("/scratch").returncode == 0
    assert not host.link.is_symlink()
