"""What a living daemon reports of itself, for those who look from outside."""

import json
from pathlib import Path
from typing import Any

import psutil

from ebs_autoscale.errors import Unfit


def living_report(path: Path) -> dict[str, Any] | None:
    """The report at this path with what its process costs; None when its daemon is not alive.

    Raises Unfit when this user may not know.
    """
    try:
        report: dict[str, Any] = json.loads(path.read_text("utf-8"))
        process = psutil.Process(report["pid"])
        if not any("ebs" in part for part in process.cmdline()):
            return None
        report["resident_bytes"] = process.memory_info().rss
    except PermissionError as error:
        raise Unfit(
            f"may not read the daemon's report {path}", hint="use sudo", cause="not root"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, psutil.Error):
        return None
    return report
