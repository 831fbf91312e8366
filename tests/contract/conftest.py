"""The sandbox for the tests of what only the real EC2 client does."""

from pathlib import Path

import pytest

from tests.contract.clouds import StartHttp, over_http


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StartHttp:
    """Start the sandbox, with boto3 against it."""
    return over_http(tmp_path, monkeypatch)
