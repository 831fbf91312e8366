"""Every error the product constructs has a cause whose exit code agrees with its family."""

import ast
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

import ebs_autoscale
from ebs_autoscale.errors import Cause, Exit, with_hint

PRODUCT = Path(ebs_autoscale.__file__).parent
TREES = {
    path.relative_to(PRODUCT).as_posix(): ast.parse(path.read_text("utf-8"))
    for path in PRODUCT.rglob("*.py")
}

EXIT_OF_FAMILY = {
    "Unfit": Exit.UNFIT,
    "Transient": Exit.FAILED,
    "NameTaken": Exit.FAILED,
    "ConfigInvalid": Exit.USAGE,
    "Refused": Exit.REFUSED,
    "LockHeld": Exit.LOCKED,
}

# What the constructors of CommandFailed and ConfigInvalid set themselves.
SET_BY_CONSTRUCTORS = {Cause.COMMAND, Cause.CONFIGURATION}


def cause_named(node: ast.AST) -> Cause | None:
    """The cause that an expression such as `Cause.QUOTA` names; None for any other node."""
    match node:
        case ast.Attribute(value=ast.Name(id="Cause"), attr=name):
            return Cause[name]
    return None


def errors_constructed() -> Iterator[tuple[str, str, Cause]]:
    """Each call of a family, or of a helper such as `_unfit`, with a literal cause."""
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            match node:
                case ast.Call(func=ast.Name(id=name), keywords=keywords):
                    family = "Unfit" if name == "_unfit" else name
                    causes = [cause_named(each.value) for each in keywords if each.arg == "cause"]
                    for cause in filter(None, causes):
                        if family in EXIT_OF_FAMILY:
                            yield f"{path}:{node.lineno}", family, cause


def test_families_agree_with_exit_codes() -> None:
    """The exit code of a cause is the one that its error's family stands for."""
    constructed = list(errors_constructed())
    assert len(constructed) > 80
    wrong = [found for found in constructed if found[2].exit is not EXIT_OF_FAMILY[found[1]]]
    assert wrong == []


def test_every_cause_is_used() -> None:
    """No cause is defined that the product neither raises nor reports."""
    named = {
        cause_named(node)
        for path, tree in TREES.items()
        if path != "errors.py"
        for node in ast.walk(tree)
    }
    assert set(Cause) - named - SET_BY_CONSTRUCTORS == set()


def test_published_names_are_unique() -> None:
    """No two causes share a published name, and each is found again by it."""
    by_name: type[Enum] = Cause
    assert len(Cause) == len(Cause.__members__)
    assert all(by_name(cause.value) is cause for cause in Cause)


def test_a_hint_continues_the_sentence() -> None:
    """Also after a message of EC2, which ends in a full stop."""
    assert with_hint("You are not authorized.", "allow it") == "You are not authorized; allow it"
    assert with_hint("You are not authorized.", "") == "You are not authorized."
