"""`status --json`: its keys are documented, and one mountpoint looks as it always did."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ebs_autoscale import config
from ebs_autoscale.cli import status
from ebs_autoscale.cli.status_json import SCHEMA, as_dict
from ebs_autoscale.errors import Cause, ConfigInvalid, Exit
from ebs_autoscale.host import paths
from ebs_autoscale.units import json_text
from tests.unit.test_screen import ALL, EXTREMES, NOW, daemon_of, status_of

# Their keys are causes and names of remarks.
FREE = {"ailments", "conditions", "remarks"}


def keys_in(found: Any) -> Iterator[str]:
    """All keys of objects within, at any depth."""
    for each in found if isinstance(found, list) else ():
        yield from keys_in(each)
    for key, value in found.items() if isinstance(found, dict) else ():
        yield key
        yield from () if key in FREE else keys_in(value)


def documented() -> set[str]:
    """What docs/status.md names in its tables."""
    text = Path("docs/status.md").read_text("utf-8").partition("## JSON")[2]
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    return set(re.findall(r"`([a-z_]+)`", " ".join(rows)))


def test_every_key_is_documented() -> None:
    """With its meaning, in docs/status.md."""
    found = as_dict([*EXTREMES.values()])
    keys = set(keys_in(found))
    assert {"schema", "others", "volume", "recent_growths", "ended_at", "qgroup"} <= keys
    assert keys - documented() == set()


def test_one_mountpoint_needs_no_list() -> None:
    """It has its keys at the top, and so has the first of several; the others are a list."""
    one = as_dict([status_of(daemon=ALL)])
    assert (one.pop("schema"), one.pop("others")) == (SCHEMA, [])
    several = as_dict([status_of(daemon=ALL), EXTREMES["unfit"], EXTREMES["invalid"]])
    assert several.pop("schema") == SCHEMA
    _, invalid = several.pop("others")
    assert several == one
    assert (invalid["exit"], invalid["mountpoint"], invalid["daemon"]) == (Exit.USAGE, "", None)


@pytest.mark.parametrize("name", EXTREMES)
def test_it_is_json_of_any_parser(name: str) -> None:
    """Without infinity, whatever the figures."""
    text = json_text(as_dict([EXTREMES[name]]))
    assert json.loads(text, parse_constant=pytest.fail)["schema"] == SCHEMA


def test_what_does_not_exist_is_null() -> None:
    """Chunks and room for metadata on ext4, inodes that can run out on BTRFS."""
    ext4, btrfs = as_dict([EXTREMES["ext4"]]), as_dict([status_of()])
    assert (ext4["kind"], btrfs["kind"]) == ("ext4", "btrfs")
    assert (ext4["decision"], ext4["inodes"]) == ("enlarge", {"total": 6553600, "available": 65535})
    for key in ("unallocated_bytes", "metadata_headroom_bytes"):
        assert ext4[key] is None
        assert btrfs[key] > 0
        assert (ext4["members"][0].get(key, None), ext4.get(key)) == (None, None)
    assert btrfs["inodes"] is None
    assert ext4.keys() == btrfs.keys()


def test_what_is_left_of_a_wait() -> None:
    """Counted from the moment of the look."""
    found = as_dict([status_of(daemon=daemon_of(retry_at=int(NOW) + 53))])
    assert found["retry_in_seconds"] == 53
    assert found["daemon"]["retry_at"] == NOW + 53
    due = as_dict([status_of(daemon=daemon_of(retry_at=int(NOW) - 5))])
    assert due["retry_in_seconds"] == 0


def test_the_worst_exit_status_counts(capsys: pytest.CaptureFixture[str]) -> None:
    """Each mountpoint is shown, whatever is wrong with another one."""
    invalid = ConfigInvalid("it is no YAML", cause=Cause.CONFIGURATION)
    settings = config.Settings(mountpoint="/nonexistent")
    configurations: status.Configurations = {
        Path("/etc/a.yaml"): invalid,
        Path("/etc/b.yaml"): settings,
    }
    assert status.show(configurations, as_json=True, watch=False) == Exit.UNFIT
    found = json.loads(capsys.readouterr().out)
    [other] = found["others"]
    assert (found["exit"], other["exit"]) == (Exit.USAGE, Exit.UNFIT)
    assert status.show(configurations, as_json=False, watch=False) == Exit.UNFIT
    shown = capsys.readouterr().out
    assert "/etc/a.yaml: unfit" in shown
    assert "/nonexistent: unfit" in shown


def test_which_configurations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of the units, or the one that was named; one that is invalid hides no other."""
    monkeypatch.setattr(paths, "CONFIG_FOLDER", tmp_path)
    monkeypatch.setattr(paths, "CONFIG_DEFAULT", tmp_path / "config.yaml")
    with pytest.raises(ConfigInvalid):
        status.configured(None)
    for name, text in {"a.yaml": "mountpoint: /a", "config.yaml": "mountpoint: /b"}.items():
        (tmp_path / name).write_text(text, "utf-8")
    (tmp_path / "old.yaml.bak").write_text("", "utf-8")
    found = status.configured(None)
    assert [path.name for path in found] == ["config.yaml", "a.yaml"]
    (tmp_path / "config.yaml").write_text("mountpoint: b", "utf-8")
    invalid, valid = status.configured(None).values()
    assert isinstance(invalid, ConfigInvalid)
    assert isinstance(valid, config.Settings)
    assert list(status.configured(tmp_path / "a.yaml")) == [tmp_path / "a.yaml"]
    with pytest.raises(ConfigInvalid):
        status.configured(tmp_path / "config.yaml")
