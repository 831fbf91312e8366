"""The words of what people read: the field's own, one for each meaning."""

from pathlib import Path

import pytest

from tests.sentences import GOLDEN, without_expressions
from tests.words import violations

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "ebs_autoscale/DESIGN.md",
    ROOT / "ebs_autoscale/config/config.yaml",
    ROOT / "cloud-init/userdata.yaml",
    *sorted(path for path in (ROOT / "docs").iterdir() if path.is_file()),
    ROOT / "docs/prometheus/alerts.yml",
    *sorted((ROOT / "systemd").iterdir()),
]


def test_sentences_use_the_words_of_the_field() -> None:
    """No sentence of the program has a word that the project has replaced, or a bare plural."""
    found = [
        f"line {found}"
        for line in GOLDEN.read_text("utf-8").splitlines()
        for found in violations(without_expressions(line))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_documents_use_the_words_of_the_field(path: Path) -> None:
    """No document has a word that the project has replaced."""
    assert violations(path.read_text("utf-8")) == []


@pytest.mark.parametrize(
    "text",
    [
        "buying the first volume",
        "2 members",
        "settling metadata failed",
        "… devices are present",
        "… attachment slots left",
        "for … now: not mounted",
        "raise it",
    ],
)
def test_what_is_found(text: str) -> None:
    """Replaced words are found in every form, bare plurals behind any number."""
    assert violations(text)


@pytest.mark.parametrize(
    "text",
    [
        '{"members": 2}',
        "growth.steps is a list of `members` and `size`",
        "  - members: 3",
        "1 device, 2 devices",
        "improve",
        "udevadm settle",
        "human-readable",
        "… has devices",
        "balance metadata",
        "available for 15 minutes",
    ],
)
def test_what_is_not_found(text: str) -> None:
    """Keys that programs read keep their names, and other words are left alone."""
    assert violations(text) == []
