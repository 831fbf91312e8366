"""How systemd writes a path in the name of a unit. Pure."""

import re

_KEPT = re.compile(rb"[0-9A-Za-z:_.]")


def escape_path(path: str) -> str:
    r"""The path as `systemd-escape --path` writes it: `/srv/my-own` is `srv-my\x2down`.

    For absolute paths without detours. Source: systemd.unit(5), "String escaping for inclusion
    in unit names".
    """
    parts = [part for part in path.split("/") if part]
    return "-".join(_escape(part, first=part is parts[0]) for part in parts) or "-"


def _escape(part: str, *, first: bool) -> str:
    letters = [bytes([byte]) for byte in part.encode(errors="surrogateescape")]
    return "".join(
        letter.decode()
        if _KEPT.fullmatch(letter) and not (first and index == 0 and letter == b".")
        else f"\\x{letter[0]:02x}"
        for index, letter in enumerate(letters)
    )
