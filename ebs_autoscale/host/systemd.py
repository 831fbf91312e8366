"""What `systemctl show` says of units. Pure."""

from dataclasses import dataclass

PROPERTIES = (
    "Id",
    "LoadState",
    "UnitFileState",
    "ActiveState",
    "SubState",
    "Result",
    "NRestarts",
    "ExecMainStatus",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One unit, in systemd's own words; `restarts` counts those that systemd made by itself."""

    name: str
    load_state: str
    file_state: str
    active_state: str
    sub_state: str
    result: str
    restarts: int
    exit_status: int


def parse_show(text: str) -> tuple[Unit, ...]:
    """Units out of `systemctl show --property=…`: lines of key=value, an empty line between units.

    What an older systemd does not know is missing (NRestarts came with 235).
    """
    units = []
    for block in text.strip().split("\n\n"):
        found = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if "Id" in found:
            units.append(
                Unit(
                    name=found["Id"],
                    load_state=found.get("LoadState", ""),
                    file_state=found.get("UnitFileState", ""),
                    active_state=found.get("ActiveState", ""),
                    sub_state=found.get("SubState", ""),
                    result=found.get("Result", ""),
                    restarts=_number(found.get("NRestarts", "")),
                    exit_status=_number(found.get("ExecMainStatus", "")),
                )
            )
    return tuple(units)


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0
