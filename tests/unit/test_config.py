"""The configuration: samples, the shipped file, and that nothing slips through."""

import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import ebs_autoscale
from ebs_autoscale.config.schema import KEYS, Key, load, parse
from ebs_autoscale.errors import ConfigInvalid
from ebs_autoscale.model import GIB
from ebs_autoscale.policy.settings import LadderStep
from tests.unit.good_settings import DEFAULT, GOOD

SAMPLES = Path(__file__).parent / "config"
SHIPPED = Path(ebs_autoscale.__file__).parent / "config/config.yaml"


@pytest.mark.parametrize("sample", sorted(SAMPLES.glob("good/*.yaml")), ids=lambda path: path.stem)
def test_good_samples_mean_what_they_say(sample: Path) -> None:
    """Each good sample loads to exactly the settings spelled out above."""
    assert load(sample) == GOOD[sample.stem]


@pytest.mark.parametrize("sample", sorted(SAMPLES.glob("bad/*.yaml")), ids=lambda path: path.stem)
def test_bad_samples_name_every_mistake(sample: Path) -> None:
    """Each bad sample is refused once, with every mistake, its line, and what is allowed."""
    with pytest.raises(ConfigInvalid) as refusal:
        parse(sample.read_text(encoding="utf-8"), name=sample.name)
    assert f"{refusal.value}\n" == sample.with_suffix(".txt").read_text(encoding="utf-8")


def test_every_sample_is_used() -> None:
    """No expectation is left without its sample."""
    assert {path.stem for path in SAMPLES.glob("good/*")} == GOOD.keys()
    stems = Counter(path.stem for path in SAMPLES.glob("bad/*"))
    assert set(stems.values()) == {2}


def _uncommented(text: str) -> str:
    """Keys stand behind `#` and no or two blanks; prose behind `# `, the ladder behind `##`."""
    return re.sub(r"^#(?=[a-z]|  )", "", text, flags=re.MULTILINE)


def _leaves(node: yaml.Node | None, prefix: str = "") -> Iterator[tuple[str, str]]:
    assert isinstance(node, yaml.MappingNode)
    for key, value in node.value:
        path = f"{prefix}{key.value}"
        if isinstance(value, yaml.ScalarNode):
            yield path, value.value
        elif value.value:
            yield from _leaves(value, f"{path}.")
        else:
            yield path, "{}" if isinstance(value, yaml.MappingNode) else "[]"


def test_the_shipped_file_is_the_default() -> None:
    """As shipped, with nothing but the mountpoint set, the file changes no default."""
    shipped = yaml.compose(SHIPPED.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    assert list(_leaves(shipped)) == [("mountpoint", "/scratch")]
    assert load(SHIPPED) == DEFAULT


def test_the_shipped_file_lists_every_key_at_its_default() -> None:
    """Uncommented, the file has each key of the contract once, at the default the table names."""
    text = _uncommented(SHIPPED.read_text(encoding="utf-8"))
    leaves = list(_leaves(yaml.compose(text, Loader=yaml.SafeLoader)))
    assert sorted(leaves) == sorted((key.path, key.default) for key in KEYS)
    assert parse(text, name="uncommented") == DEFAULT


def test_the_shipped_file_explains_every_key() -> None:
    """Above each key of the shipped file stands a line that says what it does."""
    lines = SHIPPED.read_text(encoding="utf-8").splitlines()
    for above, line in pairwise(lines):
        if re.match(r"#  [a-z_]+:|mountpoint", line):
            assert re.match(r" *# \S", above), line


def test_the_shipped_ladder_works() -> None:
    """The sample ladder loads once uncommented, with the ceiling that its comment asks for."""
    text = _uncommented(SHIPPED.read_text(encoding="utf-8"))
    text = re.sub(r"^##?(?=  )", "", text, flags=re.MULTILINE)
    text = text.replace("  steps: null\n", "").replace("max: 1TiB", "max: 1500GiB")
    rungs = parse(text, name="ladder").policy.sizing.steps
    assert [rung.devices for rung in rungs] == [1, 3, 4, 6, 10]
    assert rungs[-1] == LadderStep(devices=10, available_percent=10.0, size_bytes=1500 * GIB)


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.path)
def test_every_default_may_be_written_down(key: Key) -> None:
    """A key written at its default alone changes nothing."""
    section, _, name = key.path.rpartition(".")
    line = f"{section}:\n  {name}: {key.default}\n" if section else ""
    assert parse(f"mountpoint: /scratch\n{line}", name="one key") == DEFAULT


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    """Without a file the operator hears which, and how to get or name one."""
    with pytest.raises(ConfigInvalid, match="no such file") as refusal:
        load(tmp_path / "absent.yaml")
    assert "absent.yaml" in str(refusal.value)
    assert "--config" in refusal.value.hint


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/", "Is a directory"),
        ("/proc/self/mem", "Input/output error"),
        ("/etc/passwd/config.yaml", "Not a directory"),
        ("/a\0b", "null byte"),
        ("/dev/zero", "larger than 1 MiB"),
    ],
)
def test_what_cannot_be_read_is_said(path: str, reason: str) -> None:
    """A path that yields no configuration is refused with the system's reason, never waited for."""
    with pytest.raises(ConfigInvalid, match=reason):
        load(Path(path))


def test_other_encodings_are_named(tmp_path: Path) -> None:
    """A file that is not UTF-8 is refused with the line and byte that show it."""
    path = tmp_path / "config.yaml"
    path.write_bytes(b"mountpoint: /scratch\n# \xe9\n")
    with pytest.raises(ConfigInvalid, match="line 2: not UTF-8: byte 0xe9"):
        load(path)


def test_a_byte_order_mark_is_harmless(tmp_path: Path) -> None:
    """An editor's byte order mark changes nothing."""
    path = tmp_path / "config.yaml"
    path.write_bytes(b"\xef\xbb\xbfmountpoint: /scratch\n")
    assert load(path) == DEFAULT


def test_endless_nesting_is_refused() -> None:
    """A document nested beyond all measure is a mistake like any other."""
    with pytest.raises(ConfigInvalid, match="nested without end"):
        parse("[" * 100_000, name="deep")


def test_a_recursive_document_is_refused() -> None:
    """A value that contains itself ends in mistakes, not in a loop."""
    with pytest.raises(ConfigInvalid, match=r"volume\.mountpoint: unknown key"):
        parse("&a\nmountpoint: /scratch\nvolume: *a\n", name="recursive")


def test_tags_have_the_limits_of_ec2() -> None:
    """Tags up to EC2's lengths and our count load; one more of either is refused."""
    most = {f"{index:0128}": "x" * 256 for index in range(40)}
    text = yaml.safe_dump({"mountpoint": "/scratch", "volume": {"tags": most}})
    assert parse(text, name="tags").volume.tags == most
    for more in (most | {"41": "x"}, {"x" * 129: "x"}, {"x": "x" * 257}):
        text = yaml.safe_dump({"mountpoint": "/scratch", "volume": {"tags": more}})
        with pytest.raises(ConfigInvalid, match=r"40 would fit|EC2 allows"):
            parse(text, name="tags")


def _loaded_or_refused(text: str) -> None:
    try:
        assert parse(text, name="any").mountpoint.startswith("/")
    except ConfigInvalid as refusal:
        count = len(str(refusal).splitlines()) - 1
        plural = "" if count == 1 else "s"
        assert str(refusal).startswith(f"any: {count} mistake{plural}:\n")  # noqa: PT017 -- either


@given(st.text())
def test_any_text_loads_or_is_refused(text: str) -> None:
    """Whatever the file holds, the outcome is settings or ConfigInvalid, one line per mistake."""
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
    """Whatever stands at the known keys, the outcome is settings or ConfigInvalid."""
    document: dict[str, object] = {"mountpoint": "/scratch"}
    for path, value in values.items():
        section, _, name = path.rpartition(".")
        keys = document.setdefault(section, {}) if section else document
        assert isinstance(keys, dict)
        keys[name] = value
    _loaded_or_refused(yaml.safe_dump(document, allow_unicode=True))


@given(st.data())
def test_one_slip_never_hides_another(data: st.DataObject) -> None:
    """Every single wrong key is named, however many others are wrong as well."""
    wrong = data.draw(st.sets(st.sampled_from([key.path for key in KEYS]), min_size=1))
    document: dict[str, object] = {"mountpoint": "/scratch"}
    for path in wrong:
        section, _, name = path.rpartition(".")
        keys = document.setdefault(section, {}) if section else document
        assert isinstance(keys, dict)
        keys[name] = "!"
    with pytest.raises(ConfigInvalid) as refusal:
        parse(yaml.safe_dump(document), name="slips")
    named = {line.split(": ")[1] for line in str(refusal.value).splitlines()[1:]}
    assert named == wrong
