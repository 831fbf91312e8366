"""An IAM policy and its evaluation."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from ec2_sandbox.errors import InputInvalid
from ec2_sandbox.iam.conditions import (
    Context,
    Keys,
    expanded,
    holds,
    is_arn_like,
    is_like,
    knows,
)

_ELEMENTS = frozenset({"Sid", "Effect", "Action", "Resource", "Condition"})

# Older versions, among them the default 2008-10-17, have no policy variables.
_VERSION = "2012-10-17"


class Verdict(StrEnum):
    """The result of evaluating an access; only ALLOWED permits it."""

    ALLOWED = "allowed"
    DENIED = "explicitly denied"
    NOT_ALLOWED = "not allowed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """One action on one resource; `*` for actions without a resource."""

    action: str
    resource: str
    context: Context


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One statement of an identity-based policy."""

    allows: bool
    actions: Sequence[str]
    resources: Sequence[str]
    condition: Mapping[str, Keys]

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """Parse a statement; raises InputInvalid for everything that is not supported."""
        if not isinstance(document, Mapping):
            raise InputInvalid(f"policy statement {document!r} is not an object")
        name = document.get("Sid", "without Sid")
        if unknown := document.keys() - _ELEMENTS:
            raise InputInvalid(
                f"policy statement {name}: unknown element {', '.join(sorted(unknown))}"
            )
        if missing := _ELEMENTS - {"Sid", "Condition"} - document.keys():
            raise InputInvalid(f"policy statement {name} lacks {', '.join(sorted(missing))}")
        if document["Effect"] not in {"Allow", "Deny"}:
            raise InputInvalid(f"policy statement {name}: unknown effect {document['Effect']!r}")
        return cls(
            allows=document["Effect"] == "Allow",
            actions=_listed(document["Action"]),
            resources=_listed(document["Resource"]),
            condition=_condition(document.get("Condition", {}), name),
        )

    def applies_to(self, access: Access) -> bool:
        """Whether action, resource and condition all match."""
        return (
            any(_action_fits(pattern, access.action) for pattern in self.actions)
            and any(_resource_fits(pattern, access) for pattern in self.resources)
            and holds(self.condition, access.context)
        )


@dataclass(frozen=True, slots=True)
class Policy:
    """The policy of the instance's role."""

    statements: Sequence[Statement]

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """Parse a policy document; raises InputInvalid."""
        if not isinstance(document, Mapping) or document.keys() - {"Id"} != {
            "Version",
            "Statement",
        }:
            raise InputInvalid("a policy must be an object with Version and Statement")
        if document["Version"] != _VERSION:
            raise InputInvalid(f"policy Version is {document['Version']!r}, not {_VERSION!r}")
        statements = document["Statement"]
        each = statements if isinstance(statements, list | tuple) else [statements]
        return cls([Statement.from_document(statement) for statement in each])

    def verdict(self, access: Access) -> Verdict:
        """An explicit Deny overrides every Allow; without an Allow, access is not allowed."""
        applying = [each for each in self.statements if each.applies_to(access)]
        if any(not each.allows for each in applying):
            return Verdict.DENIED
        return Verdict.ALLOWED if applying else Verdict.NOT_ALLOWED

    def first_denied(self, accesses: Iterable[Access]) -> tuple[Access, Verdict] | None:
        """The first access that the policy does not allow, with its verdict."""
        for access in accesses:
            verdict = self.verdict(access)
            if verdict is not Verdict.ALLOWED:
                return access, verdict
        return None


def _condition(block: Any, name: str) -> Mapping[str, Keys]:
    operators = block.values() if isinstance(block, Mapping) else [block]
    if not all(isinstance(keys, Mapping) for keys in operators):
        raise InputInvalid(f"policy statement {name}: Condition must map operators to keys")
    if unknown := [operator for operator in block if not knows(operator)]:
        raise InputInvalid(f"policy statement {name}: unsupported operator {', '.join(unknown)}")
    return {
        operator: {key: _listed(values) for key, values in keys.items()}
        for operator, keys in block.items()
    }


def _listed(value: Any) -> tuple[str, ...]:
    """One value or a list of values, as text; numbers and booleans as IAM reads them."""
    values = value if isinstance(value, list | tuple) else [value]
    return tuple(str(each).lower() if isinstance(each, bool) else str(each) for each in values)


def _action_fits(pattern: str, action: str) -> bool:
    wanted = expanded(pattern.lower(), {})
    return wanted is not None and is_like(action.lower(), wanted)


def _resource_fits(pattern: str, access: Access) -> bool:
    if pattern == "*":
        return True
    wanted = expanded(pattern, access.context)
    return wanted is not None and is_arn_like(access.resource, wanted)
