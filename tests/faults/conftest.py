"""One sandbox for the whole catalogue, and botocore's waits recorded instead of waited."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import botocore.endpoint
import pytest

from tests.contract.clouds import over_http
from tests.faults.catalogue import Refusing
from tests.faults.instance import Instance


@pytest.fixture(scope="module")
def shared_refusing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Refusing]:
    """An EC2 for all cases of a file."""
    with pytest.MonkeyPatch.context() as patch:
        start = over_http(tmp_path_factory.mktemp("sandbox"), patch)
        with start() as http:
            yield Refusing(http)


@pytest.fixture
def botocore_waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that botocore would have waited between its retries."""
    waits: list[float] = []
    monkeypatch.setattr(botocore.endpoint, "time", SimpleNamespace(sleep=waits.append))
    return waits


@pytest.fixture
def instance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, botocore_waits: list[float]
) -> Iterator[Instance]:
    """An instance whose filesystem needs one more volume."""
    del botocore_waits
    with over_http(tmp_path, monkeypatch)() as http:
        yield Instance(http)
