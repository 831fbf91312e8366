"""Which device name is chosen for an attachment."""

import re

from hypothesis import given
from hypothesis import strategies as st

from ebs_autoscale.ec2.requests import DEVICE_NAMES, choose_device_name

names = st.sampled_from(DEVICE_NAMES)
aliases = names.map(lambda name: name.replace("xvd", "sd"))


def test_names_are_those_ec2_accepts() -> None:
    """All names are /dev/xvd with two letters, none twice, the documented b and c first."""
    assert len(set(DEVICE_NAMES)) == len(DEVICE_NAMES) == 102
    assert all(re.fullmatch("/dev/xvd[a-d][a-z]", name) for name in DEVICE_NAMES)
    assert all(name[-2] in "bc" for name in DEVICE_NAMES[:52])


@given(taken=st.sets(names | aliases), avoid=st.sets(names))
def test_a_taken_name_is_never_chosen(taken: set[str], avoid: set[str]) -> None:
    """A name taken in either spelling is not chosen; one to avoid only when no other is left."""
    name = choose_device_name(taken, avoid)
    alias = (name or "").replace("xvd", "sd")
    assert name not in taken
    assert alias not in taken
    assert name not in avoid or {n.replace("xvd", "sd") for n in DEVICE_NAMES} <= {
        n.replace("xvd", "sd") for n in taken | avoid
    }


def test_the_first_free_name_is_chosen() -> None:
    """The first free name is chosen; the root's `sda1` and `xvda` make no other name taken."""
    assert choose_device_name({"/dev/sda1", "/dev/xvda"}) == "/dev/xvdba"
    assert choose_device_name({"/dev/xvdba", "/dev/sdbb"}) == "/dev/xvdbc"
    assert choose_device_name(set(), avoid={"/dev/xvdba"}) == "/dev/xvdbb"


def test_all_names_taken() -> None:
    """With every name taken the result is None."""
    assert choose_device_name(set(DEVICE_NAMES)) is None
    assert choose_device_name({name.replace("xvd", "sd") for name in DEVICE_NAMES}) is None
    assert choose_device_name(set(DEVICE_NAMES[1:]), set(DEVICE_NAMES)) == DEVICE_NAMES[0]
