"""The configuration of the older script and its forks becomes ours, and no wrong one does.

`python -m tests.unit.test_translate` writes what `migration/*.json` become next to them.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from ebs_autoscale import config
from ebs_autoscale.cli.parser import main
from ebs_autoscale.errors import Cause, ConfigInvalid, Unfit
from ebs_autoscale.model import GIB
from ebs_autoscale.provision.older_script import require_not_running
from ebs_autoscale.provision.translate import Translation, read, translate

FOLDER = Path(__file__).parent / "migration"
FILES = sorted(FOLDER.glob("*.json"))
USUAL = FOLDER / "awslabs-2.4.json"


def translated(file: Path) -> Translation:
    """One of these files, where the filesystem is mounted."""
    older = read(file.read_text("utf-8"), name="/etc/ebs-autoscale.json")
    return translate(older, mountpoint=older.mountpoint, is_mounted=True)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_public_shapes(file: Path) -> None:
    """Each becomes the file and the report that are kept next to it, and the file is valid."""
    found = translated(file)
    assert found.text == file.with_suffix(".yaml").read_text("utf-8")
    assert f"{found.report}\n" == file.with_suffix(".report").read_text("utf-8")
    assert config.parse(found.text, name="written").adopt


def leaves(value: Any, path: str = "") -> list[str]:
    """The key paths of a JSON object."""
    if not isinstance(value, dict):
        return [path]
    return [leaf for key in value for leaf in leaves(value[key], f"{path}.{key}".strip("."))]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_each_key_is_reported(file: Path) -> None:
    """The report has a line for each key of the file."""
    found = translated(file).report
    for key in leaves(json.loads(file.read_text("utf-8"))):
        assert f"\n  {key} " in f"\n{found}"


def test_the_usual_file() -> None:
    """The ladder and the limits are those of the older script."""
    policy = config.parse(translated(USUAL).text, name="written").policy
    assert [
        (step.devices, step.available_percent, step.size_bytes // GIB)
        for step in policy.sizing.steps
    ] == [(1, 50, 150), (4, 20, 300), (7, 10, 1000), (11, 10, 1500)]
    assert (policy.limits.volumes, policy.limits.total_bytes) == (16, 8000 * GIB)


def test_adoption_needs_the_filesystem() -> None:
    """Where nothing is mounted, no volumes are adopted, and the report says why."""
    older = read(USUAL.read_text("utf-8"), name="old.json")
    found = translate(older, mountpoint="/scratch", is_mounted=False)
    assert not config.parse(found.text, name="written").adopt
    assert "adopt: false" in found.report


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "not JSON"),
        ("mountpoint: /scratch\n", "line 1: not JSON"),
        ('{"mountpoint": "/scratch",}', "not JSON"),
        ('{"a": ' * 100_000, "not JSON"),
        ("[" + "9" * 5000 + "]", "not JSON"),
        ("[]", "expected a mapping"),
        ("3", "expected a mapping"),
        ('"text"', "expected a mapping"),
        ('{"limits": []}', "limits: expected a mapping"),
        ('{"volume": "gp3"}', "volume: expected a mapping"),
        ('{"mountpoint": ["/scratch"]}', "expected a single value"),
        ('{"mountpoint": "scratch"}', "not an absolute path"),
        ('{"mountpoint": "/a", "mountpoint": "/b"}', "duplicate key"),
        ('{"mount": "/scratch"}', "did you mean mountpoint"),
        ('{"limits": {"max_ebs_volume_cuont": 3}}', "did you mean limits.max_ebs_volume_count"),
        ('{"monitor": {"threshold-pc": 50}}', "monitor: unknown key"),
        ('{"limits": {"max_logical_volume_size": "8TB"}}', "'8TB' is not a whole number"),
        ('{"limits": {"max_ebs_volume_size": 1.5}}', "'1.5' is not a whole number"),
        ('{"limits": {"max_ebs_volume_size": -1}}', "'-1' is not a whole number"),
        ('{"limits": {"max_ebs_volume_count": 0}}', "'0' is not a whole number"),
        ('{"limits": {"max_ebs_volume_count": true}}', "'true' is not a whole number"),
        ('{"limits": {"initial_utilization_threshold": "50%"}}', "'50%' is not a whole number"),
        ('{"limits": {"initial_utilization_threshold": 101}}', "from 1 to 100"),
        ('{"limits": {"min_ebs_volume_size": 2000}}', "more than limits.max_ebs_volume_size"),
        ('{"volume": {"type": "gp4"}}', "'gp4' is not one of"),
        ('{"volume": {"encrypted": 2}}', "neither true nor false"),
        ('{"detection_interval": 0}', "not a number above 0"),
        ('{"detection_interval": NaN}', "not a number above 0"),
        ('{"volume": {"type": "%%VOLUMETYPE%%"}}', "is a template: %%VOLUMETYPE%%"),
        ('{"volume": {"type": "gp3", "throughput": 99999}}', "outside the range for gp3"),
        ('{"volume": {"type": "io1"}}', "required for io1"),
    ],
)
def test_bad_input(text: str, told: str) -> None:
    """One error that names the file, and what is wrong in it."""
    with pytest.raises(ConfigInvalid) as caught:
        translate(read(text, name="old.json"), mountpoint="/scratch", is_mounted=False)
    assert str(caught.value).startswith("old.json")
    assert told in str(caught.value)


def test_all_mistakes_at_once() -> None:
    """Each with its line, also in a file with tabs."""
    text = '{\n\t"mountpoint":\t"scratch",\n\t"volume": {"type": "gp4"}\n}'
    with pytest.raises(ConfigInvalid, match=r"2 mistakes:\n  line 2: .*\n  line 3: "):
        read(text, name="old.json")


@pytest.mark.parametrize("filesystem", ["lvm.ext4", "lvm.xfs", "ext4"])
def test_other_filesystems(filesystem: str) -> None:
    """They are recognised, and refused with what can be done."""
    text = USUAL.read_text("utf-8").replace('"btrfs"', json.dumps(filesystem))
    with pytest.raises(Unfit) as caught:
        read(text, name="old.json")
    assert caught.value.cause is Cause.NOT_BTRFS
    assert filesystem in caught.value.what
    assert "docs/migration.md" in caught.value.hint


def test_without_a_file_or_a_mountpoint(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A file that is missing or is a folder, and no MOUNTPOINT at all, are errors of usage."""
    for told, *arguments in (
        ("absent.json: no such file", "--from", str(tmp_path / "absent.json")),
        ("cannot read", "--from", str(tmp_path)),
        ("MOUNTPOINT",),
    ):
        assert main(["init", *arguments]) == 2
        assert told in capfd.readouterr().err


def process(proc: Path, pid: int, *argv: str) -> None:
    """A process in a stand-in for /proc."""
    folder = proc / str(pid)
    folder.mkdir()
    (folder / "cmdline").write_bytes(b"".join(os.fsencode(word) + b"\0" for word in argv))


@pytest.mark.parametrize(
    "argv",
    [
        ("/bin/sh", "/usr/local/bin/ebs-autoscale"),
        ("bash", "/usr/local/amazon-ebs-autoscale/bin/ebs-autoscale"),
        ("sh", "/usr/local/bin/ebs-autoscale", "/scratch"),
    ],
)
def test_the_daemon_of_the_older_script(argv: tuple[str, ...], tmp_path: Path) -> None:
    """It is a shell that runs the script; the error has its pid."""
    process(tmp_path, 2, "kthreadd")
    process(tmp_path, 4711, *argv)
    with pytest.raises(Unfit, match="pid 4711") as caught:
        require_not_running(tmp_path)
    assert caught.value.cause is Cause.UNIT


@pytest.mark.parametrize(
    "argv",
    [
        ("sh", "/usr/local/bin/ebs-autoscale", "init", "--from", "old.json"),
        ("/opt/ebs-autoscale/bin/python", "/opt/ebs-autoscale/bin/ebs-autoscale", "run"),
        ("less", "/usr/local/bin/ebs-autoscale"),
        ("bash", "-c", "ebs-autoscale"),
        (),
    ],
)
def test_another_process(argv: tuple[str, ...], tmp_path: Path) -> None:
    """Ours, even when started by a script of that name, is none of the older script."""
    process(tmp_path, 4711, *argv)
    (tmp_path / "uptime").touch()
    (tmp_path / "1").mkdir()
    require_not_running(tmp_path)


if __name__ == "__main__":
    for each in FILES:
        written = translated(each)
        each.with_suffix(".yaml").write_text(written.text, "utf-8")
        each.with_suffix(".report").write_text(f"{written.report}\n", "utf-8")
