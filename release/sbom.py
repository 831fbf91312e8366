"""The software bill of materials of a tree, in CycloneDX 1.6: https://cyclonedx.org/docs/1.6/json/."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from release.wheels import Wheel


def sbom(product: Wheel, dependencies: Sequence[Wheel], *, epoch: int) -> bytes:
    """The product, its dependencies, and the wheels they were taken from, by hash."""
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(epoch, UTC).isoformat(),
            "component": _component(product, kind="application"),
        },
        "components": [_component(each, kind="library") for each in dependencies],
        "dependencies": [
            {"ref": _purl(product), "dependsOn": sorted(_purl(each) for each in dependencies)}
        ],
    }
    return json.dumps(document, indent=1).encode() + b"\n"


def _component(wheel: Wheel, *, kind: str) -> dict[str, Any]:
    metadata = wheel.metadata
    found: dict[str, Any] = {
        "type": kind,
        "bom-ref": _purl(wheel),
        "name": metadata["Name"],
        "version": metadata["Version"],
        "description": metadata["Summary"],
        "purl": _purl(wheel),
        "hashes": [{"alg": "SHA-256", "content": wheel.sha256}],
    }
    # An expression of SPDX, or in older metadata a name such as "Dual License".
    if expression := metadata["License-Expression"]:
        found["licenses"] = [{"expression": expression}]
    elif name := metadata["License"]:
        found["licenses"] = [{"license": {"name": name}}]
    return found


def _purl(wheel: Wheel) -> str:
    name = wheel.metadata["Name"].lower().replace("_", "-")
    return f"pkg:pypi/{name}@{wheel.metadata['Version']}"
