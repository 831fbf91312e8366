"""EC2's answers with each of their elements in every wrong shape."""

import copy
from collections.abc import Iterator
from xml.etree import ElementTree as ET

import pytest

from tests.fuzz.targets import EC2_ANSWERS, FuzzedEc2


def _without(parent: ET.Element, element: ET.Element) -> None:
    parent.remove(element)


def _doubled(parent: ET.Element, element: ET.Element) -> None:
    parent.append(copy.deepcopy(element))


def _emptied(_: ET.Element, element: ET.Element) -> None:
    element.clear()


def _with_element_inside(_: ET.Element, element: ET.Element) -> None:
    element.insert(0, ET.Element("item"))


def _text_only(_: ET.Element, element: ET.Element) -> None:
    element.clear()
    element.text = "٣"


_SHAPES = (_without, _doubled, _emptied, _with_element_inside, _text_only)


def _links(answer: bytes) -> tuple[ET.Element, list[tuple[ET.Element, ET.Element]]]:
    """The root, and each element below it with its parent."""
    root = ET.fromstring(answer)  # noqa: S314 -- a sample of ours
    return root, [(parent, child) for parent in root.iter() for child in parent]


def _misshapen(answer: bytes) -> Iterator[bytes]:
    for shape in _SHAPES:
        for index in range(len(_links(answer)[1])):
            root, links = _links(answer)
            shape(*links[index])
            yield ET.tostring(root)


@pytest.mark.parametrize("answer", EC2_ANSWERS, ids=lambda answer: answer[:60])
def test_every_element_in_every_wrong_shape(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing, doubled, empty or nested ends in a value or in an error of ours."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "example")
    ec2 = FuzzedEc2()
    for content in _misshapen(answer):
        ec2(content)
