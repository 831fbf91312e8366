"""The Condition block of an IAM statement: operators, several values, policy variables.

Source: IAM user guide, "Condition operators", "Single-valued vs. multivalued context keys"
and "Variables and tags".
"""

import re
from collections.abc import Callable, Mapping, Sequence

Context = Mapping[str, Sequence[str]]
"""The condition keys of a request in lower case, as IAM compares them, with their values."""

Keys = Mapping[str, Sequence[str]]
"""The keys of one operator of a Condition block, as written, with their allowed values."""

# Placeholders for the wildcards of a pattern, so that a * in the value of a variable is literal.
_ANY, _ONE = "\ue000", "\ue001"
_WILDCARDS = {"*": _ANY, "?": _ONE}
_PARTS_OF_ARN = 6
_TOKEN = re.compile(r"\$\{([^}]*)\}|([*?])")


def expanded(pattern: str, context: Context) -> str | None:
    """Replace the variables of a pattern; None, which matches nothing, if one has no value."""
    missing = False

    def replaced(token: re.Match[str]) -> str:
        nonlocal missing
        if token[2]:
            return _WILDCARDS[token[2]]
        if token[1] in {"*", "?", "$"}:
            return token[1]
        name, _, default = token[1].partition(",")
        values = context.get(name.strip().lower(), ())
        if not values and not default:
            missing = True
            return ""
        return values[0] if values else default.strip().strip("'")

    text = _TOKEN.sub(replaced, pattern)
    return None if missing else text


def is_like(value: str, wanted: str) -> bool:
    """Match a whole value against an expanded pattern."""
    expression = re.escape(wanted).replace(_ANY, ".*").replace(_ONE, ".")
    return re.fullmatch(expression, value, re.DOTALL) is not None


def is_arn_like(value: str, wanted: str) -> bool:
    """Match ARNs part by part: a wildcard crosses a colon only in the last part."""
    parts, patterns = value.split(":", 5), wanted.split(":", 5)
    if len(parts) != _PARTS_OF_ARN or len(patterns) != _PARTS_OF_ARN:
        return False
    return all(map(is_like, parts, patterns))


def holds(condition: Mapping[str, Keys], context: Context) -> bool:
    """Whether every operator holds for every key."""
    return all(
        _key_holds(operator, context.get(key.lower(), ()), wanted, context)
        for operator, keys in condition.items()
        for key, wanted in keys.items()
    )


def knows(operator: str) -> bool:
    """Whether the operator is supported; policies with other operators are refused."""
    return operator == "Null" or _bare(operator) in _TESTS


def _bare(operator: str) -> str:
    bare = operator.removeprefix("ForAllValues:").removeprefix("ForAnyValue:")
    bare = bare.removesuffix("IfExists")
    return bare.replace("NotEquals", "Equals").replace("NotLike", "Like")


def _key_holds(
    operator: str, values: Sequence[str], wanted: Sequence[str], context: Context
) -> bool:
    bare = _bare(operator)
    if bare == "Null":
        return any((each.lower() == "true") == (not values) for each in wanted)
    negated = bare != operator and "Not" in operator
    if not values:
        # A missing key satisfies only negated operators, IfExists and ForAllValues.
        always = operator.endswith("IfExists") or operator.startswith("ForAllValues:")
        return always or (negated and not operator.startswith("ForAnyValue:"))
    patterns = [text for each in wanted if (text := expanded(each, context)) is not None]
    test = _TESTS[bare]
    verdicts = [any(test(value, each) for each in patterns) is not negated for value in values]
    return all(verdicts) if operator.startswith("ForAllValues:") else any(verdicts)


def _literal(wanted: str) -> str:
    return wanted.replace(_ANY, "*").replace(_ONE, "?")


def _numeric(compare: Callable[[float, float], bool]) -> Callable[[str, str], bool]:
    def test(value: str, wanted: str) -> bool:
        try:
            return compare(float(value), float(wanted))
        except ValueError:
            return False

    return test


_TESTS: Mapping[str, Callable[[str, str], bool]] = {
    "StringEquals": lambda value, wanted: value == _literal(wanted),
    "StringEqualsIgnoreCase": lambda value, wanted: value.lower() == _literal(wanted).lower(),
    "StringLike": is_like,
    "ArnEquals": is_arn_like,
    "ArnLike": is_arn_like,
    "Bool": lambda value, wanted: value.lower() == wanted.lower(),
    "NumericEquals": _numeric(lambda value, wanted: value == wanted),
    "NumericLessThan": _numeric(lambda value, wanted: value < wanted),
    "NumericLessThanEquals": _numeric(lambda value, wanted: value <= wanted),
    "NumericGreaterThan": _numeric(lambda value, wanted: value > wanted),
    "NumericGreaterThanEquals": _numeric(lambda value, wanted: value >= wanted),
}
