"""An IAM policy: which of its statements speak of an access, and what they come to."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from ebs_autoscale.errors import ConfigInvalid
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

# The one in which policy variables mean something; without Version it would be 2008-10-17.
_VERSION = "2012-10-17"


class Verdict(StrEnum):
    """What a policy says of an access; silence is a denial, too."""

    ALLOWED = "allowed"
    DENIED = "explicitly denied"
    NOT_ALLOWED = "not allowed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """One action on one resource, `*` for actions that have none."""

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
        """Read one; raises ConfigInvalid for what would otherwise be misread."""
        if not isinstance(document, Mapping):
            raise ConfigInvalid(f"policy statement {document!r} is not an object")
        name = document.get("Sid", "without Sid")
        if unknown := document.keys() - _ELEMENTS:
            raise ConfigInvalid(f"policy statement {name}: no element {', '.join(sorted(unknown))}")
        if missing := _ELEMENTS - {"Sid", "Condition"} - document.keys():
            raise ConfigInvalid(f"policy statement {name} lacks {', '.join(sorted(missing))}")
        if document["Effect"] not in {"Allow", "Deny"}:
            raise ConfigInvalid(f"policy statement {name}: no effect {document['Effect']!r}")
        return cls(
            allows=document["Effect"] == "Allow",
            actions=_listed(document["Action"]),
            resources=_listed(document["Resource"]),
            condition=_condition(document.get("Condition", {}), name),
        )

    def speaks_of(self, access: Access) -> bool:
        """Whether action, resource and condition all fit."""
        return (
            any(_action_fits(pattern, access.action) for pattern in self.actions)
            and any(_resource_fits(pattern, access) for pattern in self.resources)
            and holds(self.condition, access.context)
        )


@dataclass(frozen=True, slots=True)
class Policy:
    """The one policy of the instance's role."""

    statements: Sequence[Statement]

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """Read a policy document; raises ConfigInvalid."""
        if not isinstance(document, Mapping) or document.keys() - {"Id"} != {
            "Version",
            "Statement",
        }:
            raise ConfigInvalid("a policy is an object with Version and Statement")
        if document["Version"] != _VERSION:
            raise ConfigInvalid(f"policy Version {document['Version']!r} is not {_VERSION!r}")
        statements = document["Statement"]
        each = statements if isinstance(statements, list | tuple) else [statements]
        return cls([Statement.from_document(statement) for statement in each])

    def verdict(self, access: Access) -> Verdict:
        """An explicit denial wins over everything, an allowance over silence."""
        speaking = [each for each in self.statements if each.speaks_of(access)]
        if any(not each.allows for each in speaking):
            return Verdict.DENIED
        return Verdict.ALLOWED if speaking else Verdict.NOT_ALLOWED

    def first_denied(self, accesses: Iterable[Access]) -> tuple[Access, Verdict] | None:
        """The access that decides over a request which needs all of them."""
        for access in accesses:
            verdict = self.verdict(access)
            if verdict is not Verdict.ALLOWED:
                return access, verdict
        return None


def _condition(block: Any, name: str) -> Mapping[str, Keys]:
    operators = block.values() if isinstance(block, Mapping) else [block]
    if not all(isinstance(keys, Mapping) for keys in operators):
        raise ConfigInvalid(f"policy statement {name}: Condition is not operators with keys")
    if strange := [operator for operator in block if not knows(operator)]:
        raise ConfigInvalid(f"policy statement {name}: no operator {', '.join(strange)}")
    return {
        operator: {key: _listed(values) for key, values in keys.items()}
        for operator, keys in block.items()
    }


def _listed(value: Any) -> tuple[str, ...]:
    """One value or many; numbers and booleans as IAM reads them, as text."""
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
