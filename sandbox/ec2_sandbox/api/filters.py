"""Filters, wildcards and pages of the Describe actions."""

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from ec2_sandbox.errors import ApiError

Item = TypeVar("Item")
Facets = Mapping[str, Callable[[Item], Iterable[str]]]
"""For each filter of a Describe action, the values of an item."""

_MAX_FILTER_VALUES = 200  # EC2 API reference, "Filters": "a maximum of 200 filter values"


def select(
    items: Iterable[Item],
    params: Mapping[str, Any],
    facets: Facets[Item],
    tags_of: Callable[[Item], Mapping[str, str]] | None = None,
) -> list[Item]:
    """Keep the items that match any value of every filter of the request.

    Raises ApiError InvalidParameterValue for an unknown filter.
    """
    kept = list(items)
    wanted = params.get("Filters", [])
    if sum(len(each.get("Values", [])) for each in wanted) > _MAX_FILTER_VALUES:
        raise ApiError("FilterLimitExceeded", "The maximum number of filter values is reached.")
    for each in wanted:
        values_of = _facet(each.get("Name", ""), facets, tags_of)
        patterns = [_pattern(value) for value in each.get("Values", [])]
        kept = [item for item in kept if _matches(values_of(item), patterns)]
    return kept


def page(
    items: Sequence[Item],
    params: Mapping[str, Any],
    key: Callable[[Item], str],
    *,
    least: int = 5,
    most: int = 1000,
) -> tuple[list[Item], str | None]:
    """Return one page in the order of `key` and the token of the next; None at the end.

    Changes between two pages never repeat or skip other items.
    """
    size = params.get("MaxResults")
    if size is not None and not least <= size <= most:
        raise ApiError(
            "InvalidParameterValue",
            f"Value ( {size} ) for parameter maxResults is invalid. "
            f"Expecting a value between {least} and {most}.",
        )
    after = _read_token(params["NextToken"]) if params.get("NextToken") else ""
    rest = sorted((item for item in items if key(item) > after), key=key)
    shown = rest if size is None else rest[:size]
    return shown, _token(key(shown[-1])) if len(shown) < len(rest) else None


def exclusive(params: Mapping[str, Any], ids: str, wire_name: str) -> None:
    """Refuse ids together with MaxResults, as EC2 does."""
    if params.get(ids) and params.get("MaxResults") is not None:
        raise ApiError(
            "InvalidParameterCombination",
            f"The parameter {wire_name} cannot be used with the parameter maxResults",
        )


def words(*values: object) -> list[str]:
    """Format values as filters compare them; None is left out."""
    return [
        str(value).lower() if isinstance(value, bool) else str(value)
        for value in values
        if value is not None
    ]


def _facet(
    name: str,
    facets: Facets[Item],
    tags_of: Callable[[Item], Mapping[str, str]] | None,
) -> Callable[[Item], Iterable[str]]:
    if name in facets:
        return facets[name]
    if tags_of is not None and name == "tag-key":
        return tags_of
    if tags_of is not None and name.startswith("tag:"):
        tag = name.removeprefix("tag:")
        return lambda item: words(tags_of(item).get(tag))
    raise ApiError("InvalidParameterValue", f"The filter '{name}' is invalid")


def _matches(values: Iterable[str], patterns: Sequence[re.Pattern[str]]) -> bool:
    return any(pattern.fullmatch(value) for value in values for pattern in patterns)


def _pattern(value: str) -> re.Pattern[str]:
    """Wildcards of EC2: `*` is any characters, `?` is one; a backslash makes them literal."""
    parts = re.findall(r"\\.|.", value, re.DOTALL)
    wild = {"*": ".*", "?": "."}
    return re.compile(
        "".join(wild.get(part) or re.escape(part.removeprefix("\\") or part) for part in parts),
        re.DOTALL,
    )


def _token(key: str) -> str:
    return base64.urlsafe_b64encode(f"after:{key}".encode()).decode()


def _read_token(token: str) -> str:
    try:
        mark, _, key = base64.urlsafe_b64decode(token).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        mark, key = "", ""
    if mark != "after":
        raise ApiError("InvalidNextToken", f"The token '{token}' is invalid.")
    return key
