"""A moment of `make fuzz` with each run of the tests."""

import pytest

from tests.fuzz.__main__ import fuzz

SEED = 20_261


def test_no_parser_raises_what_it_does_not_declare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever comes from outside ends in a value or in an error of ours."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "example")
    assert list(fuzz(3.0, SEED)) == []
