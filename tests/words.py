"""Words and turns of phrase that the project does not use, with what it says instead."""

import re

_NOUNS = "characters|chunks|devices|errors|files|growths|lines|members|mistakes|slots|tags|volumes"
_ADJECTIVES = "attachment|client|data|managed"


# Keys of the configuration and of the JSON documents keep their names, quoted or before a colon.
_MEMBERS = r"(?<![\"'`.])\bmembers?\b(?![\"'`:])"

REPLACED = {
    r"\b(buy|buys|buying|bought|purchas\w*)\b": "create, created",
    _MEMBERS: "device, devices",
    r"(?<!udevadm )\b(settle[ds]?|settling|unsettled)\b": "balance metadata",
    r"\b(prove[ds]?|proving|proven|unproved)\b": "verify, verified",
    r"\bleft-?overs?\b|\bleft half-?way\b|\bhalf added\b": "orphaned volume, unfinished growth",
    r"\b(somebody|nobody|anybody)\b": "another process, no daemon, an operator",
    r"\bhumans?\b(?!-readable)": "operator",
    r"\bgives? way\b": "pausing a running balance",
    r"\bhangs as\b": "attachment of V as N is stuck",
    r"\bcomes? loose\b": "timed out detaching V from N",
    r"\b(will )?outlives? (this|the) instance\b": "will not be deleted with the instance",
    r"\bshort of\b": "capped by growth.max (500 GiB wanted)",
    r"\bhelp takes\b": "adding a volume may take",
    r"\bover after\b": "resolved after",
    r"\bfor (\S+|\d+ \w+) now\b": "still failing after",
    r"\bof before stays?\b": "keeping the previous configuration",
    r"^\s*raise it\b|[;,] raise it\b": "raise limits.total",
    r"\bno room for .* in the zone\b": "insufficient capacity in this Availability Zone",
    r"\bnew to us\b": "unrecognised EC2 error",
    r"\bfails again and again\b": "is in a restart loop",
    r"\bit may pass\b": "may be transient",
    r"\blook what (it is|is on it)\b": "inspect it with `wipefs /dev/X`",
    r"\bleast level\b": "minimum log level",
    r"\bmost bytes in\b": "maximum total size of",
    r"\bdecides, has and waits for\b": "show space, the next decision and pending retries",
    r"\bwished\b": "requested, configured",
    r"\b1 (devices|volumes|growths|members|errors|files)\b": "1 device, 1 volume",
    rf"… (({_ADJECTIVES}) )?({_NOUNS})\b": "units.counted(number, 'device')",
}


def violations(text: str) -> list[str]:
    """Each match in a text, with its line number and what to write instead."""
    return [
        f"{number}: {match[0]!r} in {line.strip()!r}: write {instead}"
        for number, line in enumerate(text.splitlines(), start=1)
        for pattern, instead in REPLACED.items()
        for match in re.finditer(pattern, line, re.IGNORECASE)
    ]
