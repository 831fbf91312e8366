"""The configuration: samples, the shipped file, and that every mistake is found."""

import os
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ebs_autoscale.config.schema import KEYS, load, parse
from ebs_autoscale.errors import ConfigInvalid
from ebs_autoscale.model import GIB
from ebs_autoscale.policy.settings import LadderStep
from tests.unit.good_settings import DEFAULT, GOOD
from tests.unit.shipped_config import (
    SHIPPED,
    SHIPPED_TEXT,
    keys_in,
    shipped_defaults,
    uncommented,
)

SAMPLES = Path(__file__).parent / "config"


@pytest.mark.parametrize("sample", sorted(SAMPLES.glob("good/*.yaml")), ids=lambda path: path.stem)
def test_good_samples_mean_what_they_say(sample: Path) -> None:
    """Each good sample loads to exactly the settings in good_settings."""
    assert load(sample) == GOOD[sample.stem]


@pytest.mark.parametrize("sample", sorted(SAMPLES.glob("bad/*.yaml")), ids=lambda path: path.stem)
def test_bad_samples_name_every_mistake(sample: Path) -> None:
    """Each bad sample is refused with every mistake: its line and key, and what is allowed.

    A line of the expectation is the beginning of a line of the message, and what else it contains.
    """
    with pytest.raises(ConfigInvalid) as refusal:
        parse(sample.read_text(encoding="utf-8"), name=sample.name)
    first, *found = str(refusal.value).splitlines()
    assert first.startswith(f"{sample.name}: ")
    expected = sample.with_suffix(".txt").read_text(encoding="utf-8").splitlines()
    for line, expectation in zip(found, expected, strict=True):
        place, *parts = expectation.split(" … ")
        assert line.startswith(f"  {place}: ")
        assert all(part in line for part in parts)


def test_every_sample_is_used() -> None:
    """Every sample has its expectation, and every expectation its sample."""
    assert {path.stem for path in SAMPLES.glob("good/*")} == GOOD.keys()
    stems = Counter(path.stem for path in SAMPLES.glob("bad/*"))
    assert set(stems.values()) == {2}


def test_the_shipped_file_is_the_default() -> None:
    """The shipped file sets only the mountpoint, and changes no default."""
    assert keys_in(SHIPPED_TEXT) == [("mountpoint", "/scratch")]
    assert load(SHIPPED) == DEFAULT


def test_the_shipped_file_lists_every_key() -> None:
    """Uncommented, the shipped file has each key once, and changes no default."""
    assert shipped_defaults().keys() == {key.path for key in KEYS}
    assert parse(uncommented(SHIPPED_TEXT), name="all keys") == DEFAULT


def test_the_shipped_file_explains_every_key() -> None:
    """Above each key of the shipped file is a comment."""
    lines = SHIPPED_TEXT.splitlines()
    for above, line in pairwise(lines):
        if re.match(r"#  [a-z_]+:|mountpoint", line):
            assert re.match(r" *# \S", above), line


def test_the_shipped_ladder_works() -> None:
    """The sample ladder loads when it is uncommented as its comment says."""
    text = uncommented(SHIPPED_TEXT)
    text = re.sub(r"^##?(?=  )", "", text, flags=re.MULTILINE)
    text = text.replace("  steps: null\n", "").replace("max: 1TiB", "max: 1500GiB")
    steps = parse(text, name="ladder").policy.sizing.steps
    assert [step.devices for step in steps] == [1, 3, 4, 6, 10]
    assert steps[-1] == LadderStep(devices=10, available_percent=10.0, size_bytes=1500 * GIB)


@pytest.mark.parametrize(("key", "default"), shipped_defaults().items())
def test_every_default_may_be_written_down(key: str, default: str) -> None:
    """A key written alone at its default changes nothing."""
    section, _, name = key.rpartition(".")
    line = f"{section}:\n  {name}: {default}\n" if section else ""
    assert parse(f"mountpoint: /scratch\n{line}", name="one key") == DEFAULT


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    """A missing file is named, and so is the option for another one."""
    with pytest.raises(ConfigInvalid, match=r"absent\.yaml") as refusal:
        load(tmp_path / "absent.yaml")
    assert "--config" in refusal.value.hint


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/", "Is a directory"),
        ("/proc/self/mem", "Input/output error"),
        ("/etc/passwd/config.yaml", "Not a directory"),
        ("/a\0b", "null byte"),
        ("/dev/zero", "1 MiB"),
    ],
)
def test_unreadable_files(path: str, reason: str) -> None:
    """A path that cannot be read is refused with the reason, and never waited for."""
    with pytest.raises(ConfigInvalid, match=reason):
        load(Path(path))


def test_only_a_pipe_with_a_name_is_refused(tmp_path: Path) -> None:
    """One among the configurations would be waited for; one of the shell has its writer."""
    os.mkfifo(tmp_path / "config.yaml")
    with pytest.raises(ConfigInvalid, match="pipe"):
        load(tmp_path / "config.yaml")
    reader, writer = os.pipe()
    os.write(writer, b"mountpoint: /scratch")
    os.close(writer)
    assert load(Path("/dev/fd", str(reader))).mountpoint == "/scratch"
    os.close(reader)


def test_other_encodings_are_named(tmp_path: Path) -> None:
    """A file that is not UTF-8 is refused with the line and the byte."""
    path = tmp_path / "config.yaml"
    path.write_bytes(b"mountpoint: /scratch\n# \xe9\n")
    with pytest.raises(ConfigInvalid, match=r"line 2: .*0xe9"):
        load(path)


def test_a_byte_order_mark_is_harmless(tmp_path: Path) -> None:
    """A byte order mark changes nothing."""
    path = tmp_path / "config.yaml"
    path.write_bytes(b"\xef\xbb\xbfmountpoint: /scratch\n")
    assert load(path) == DEFAULT


def test_deep_nesting_is_refused() -> None:
    """A document nested too deeply is a mistake like any other."""
    with pytest.raises(ConfigInvalid, match="YAML"):
        parse("[" * 100_000, name="deep")


def test_a_recursive_document_is_refused() -> None:
    """A value that contains itself ends in mistakes, not in an endless loop."""
    with pytest.raises(ConfigInvalid, match=r"volume\.mountpoint: "):
        parse("&a\nmountpoint: /scratch\nvolume: *a\n", name="recursive")


def test_tags_have_the_limits_of_ec2() -> None:
    """Tags up to EC2's lengths and our number load; one more of either is refused."""
    most = {f"{index:0128}": "x" * 256 for index in range(40)}
    text = yaml.safe_dump({"mountpoint": "/scratch", "volume": {"tags": most}})
    assert parse(text, name="tags").volume.tags == most
    for more in (most | {"41": "x"}, {"x" * 129: "x"}, {"x": "x" * 257}):
        text = yaml.safe_dump({"mountpoint": "/scratch", "volume": {"tags": more}})
        with pytest.raises(ConfigInvalid, match=r"\b(40|128|256)\b"):
            parse(text, name="tags")


def _loaded_or_refused(text: str) -> None:
    try:
        assert parse(text, name="any").mountpoint.startswith("/")
    except ConfigInvalid as refusal:
        count = len(str(refusal).splitlines()) - 1
        assert str(refusal).startswith(f"any: {count} ")  # noqa: PT017 -- either


@given(st.text())
def test_any_text_loads_or_is_refused(text: str) -> None:
    """Any text yields settings or ConfigInvalid with one line for each mistake."""
    _loaded_or_refused(text)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.dates()
    | st.text()
    | st.sampled_from(["20GiB", "1TiB", "50%", "90s", "auto", "off", "gp3", "io1", "st1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([key.path for key in KEYS]), VALUES, min_size=1))
def test_any_value_anywhere_loads_or_is_refused(values: dict[str, object]) -> None:
    """Any values of the known keys yield settings or ConfigInvalid."""
    document: dict[str, object] = {"mountpoint": "/scratch"}
    for path, value in values.items():
        section, _, name = path.rpartition(".")
        keys = document.setdefault(section, {}) if section else document
        assert isinstance(keys, dict)
        keys[name] = value
    _loaded_or_refused(yaml.safe_dump(document, allow_unicode=True))


@given(st.data())
def test_no_mistake_hides_another(data: st.DataObject) -> None:
    """Every wrong value is named, however many others are wrong as well."""
    wrong = data.draw(st.sets(st.sampled_from([key.path for key in KEYS]), min_size=1))
    document: dict[str, object] = {"mountpoint": "/scratch"}
    for path in wrong:
        section, _, name = path.rpartition(".")
        keys = document.setdefault(section, {}) if section else document
        assert isinstance(keys, dict)
        keys[name] = "'"
    with pytest.raises(ConfigInvalid) as refusal:
        parse(yaml.safe_dump(document), name="wrong")
    named = {line.split(": ")[1] for line in str(refusal.value).splitlines()[1:]}
    assert named == wrong
