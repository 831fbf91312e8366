"""EC2's query protocol: parse requests and render responses by botocore's service model."""

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any
from xml.etree import ElementTree as ET  # written here, never parsed

from botocore.loaders import Loader
from botocore.model import ListShape, OperationModel, ServiceModel, Shape, StructureShape

from ec2_sandbox.errors import ApiError

_ENVELOPE = frozenset({"Action", "Version"})
Tree = dict[str, Any]


@lru_cache(maxsize=1)
def ec2_model() -> ServiceModel:
    """Load the EC2 service model of the installed botocore, once: it takes 0.1 s."""
    return ServiceModel(Loader().load_service_model("ec2", "service-2"), "ec2")


def operation_named(action: str) -> OperationModel:
    """Look up an EC2 operation; raises ApiError InvalidAction."""
    if action not in ec2_model().operation_names:
        raise ApiError("InvalidAction", f"The action {action} is not valid for this web service.")
    return ec2_model().operation_model(action)


def parse(operation: OperationModel, form: Mapping[str, str]) -> dict[str, Any]:
    """Convert a form to typed parameters, named as in boto3; absent parameters stay absent.

    Raises ApiError for unknown, missing and malformed parameters.
    """
    tree: Tree = {}
    for name, value in form.items():
        if name not in _ENVELOPE:
            _plant(tree, name, value)
    if operation.input_shape is None:
        return {}
    parsed: dict[str, Any] = _parse_structure(operation.input_shape, tree, "")
    for name in operation.input_shape.required_members:
        if name not in parsed:
            raise ApiError(
                "MissingParameter", f"The request must contain the parameter {_lower(name)}"
            )
    return parsed


def render(operation: OperationModel, result: Mapping[str, Any] | None, request_id: str) -> bytes:
    """Render a result as an EC2 response; a value of None is an absent element.

    A name that is not in the service model is a bug in the sandbox and raises KeyError.
    """
    root = ET.Element(f"{operation.name}Response", xmlns=ec2_model().metadata["xmlNamespace"])
    ET.SubElement(root, "requestId").text = request_id
    if operation.output_shape is None:
        ET.SubElement(root, "return").text = "true"
    else:
        _render_structure(root, operation.output_shape, result or {})
    return _document(root)


def render_error(error: ApiError, request_id: str) -> bytes:
    """Render an EC2 error response."""
    root = ET.Element("Response")
    entry = ET.SubElement(ET.SubElement(root, "Errors"), "Error")
    ET.SubElement(entry, "Code").text = error.code
    ET.SubElement(entry, "Message").text = error.message
    ET.SubElement(root, "RequestID").text = request_id
    return _document(root)


def _document(root: ET.Element) -> bytes:
    text: str = ET.tostring(root, "unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}'.encode()


def _lower(name: str) -> str:
    return name[:1].lower() + name[1:]


def _plant(tree: Tree, dotted: str, value: str) -> None:
    *path, last = dotted.split(".")
    for name in path:
        tree = tree.setdefault(name, {})
        if not isinstance(tree, dict):
            raise _unknown(dotted)
    if last in tree:
        raise _unknown(dotted)
    tree[last] = value


def _unknown(name: str) -> ApiError:
    return ApiError("UnknownParameter", f"The parameter {name} is not recognized")


def _members(shape: Shape) -> Iterator[tuple[str, str, Shape]]:
    """Yield the boto3 name, the name on the wire and the shape of each member.

    The name on the wire is the queryName, else the capitalised locationName, else the member's
    capitalised name.
    """
    assert isinstance(shape, StructureShape)  # noqa: S101 -- narrows the type for mypy
    for name, member in shape.members.items():
        location = str(member.serialization.get("name", name))
        capitalised = location[:1].upper() + location[1:]
        yield name, str(member.serialization.get("queryName", capitalised)), member


def _parse_structure(shape: Shape, tree: Tree, prefix: str) -> dict[str, Any]:
    wire = {wire_name: (name, member) for name, wire_name, member in _members(shape)}
    parsed = {}
    for wire_name, value in tree.items():
        if wire_name not in wire:
            raise _unknown(prefix + wire_name)
        name, member = wire[wire_name]
        parsed[name] = _parse(member, value, prefix + wire_name)
    return parsed


def _parse(shape: Shape, value: str | Tree, path: str) -> Any:
    if shape.type_name in ("structure", "list"):
        if not isinstance(value, dict):
            raise ApiError("InvalidParameterValue", f"The parameter {path} is not a plain value")
        if shape.type_name == "structure":
            return _parse_structure(shape, value, f"{path}.")
        return _parse_list(shape, value, path)
    if isinstance(value, dict):
        raise _unknown(f"{path}.{next(iter(value))}")
    return _parse_scalar(shape.type_name, value, path)


def _parse_list(shape: Shape, tree: Tree, path: str) -> list[Any]:
    assert isinstance(shape, ListShape)  # noqa: S101 -- narrows the type for mypy
    for index in tree:
        if not index.isdecimal():
            raise _unknown(f"{path}.{index}")
    ordered = sorted(tree.items(), key=lambda entry: int(entry[0]))
    return [_parse(shape.member, value, f"{path}.{index}") for index, value in ordered]


def _parse_scalar(type_name: str, value: str, path: str) -> Any:
    wrong = ApiError(
        "InvalidParameterValue", f"Value ({value}) for parameter {_lower(path)} is invalid."
    )
    match type_name:
        case "integer" | "long":
            if not re.fullmatch(r"-?\d{1,19}", value):
                raise wrong
            return int(value)
        case "boolean":
            if value.lower() not in ("true", "false"):
                raise wrong
            return value.lower() == "true"
        case _:
            return value


def _render_structure(parent: ET.Element, shape: Shape, value: Mapping[str, Any]) -> None:
    assert isinstance(shape, StructureShape)  # noqa: S101 -- narrows the type for mypy
    for name, content in value.items():
        member = shape.members[name]
        if content is not None:
            _render(parent, str(member.serialization.get("name", name)), member, content)


def _render(parent: ET.Element, tag: str, shape: Shape, value: Any) -> None:
    element = ET.SubElement(parent, tag)
    if isinstance(shape, StructureShape):
        _render_structure(element, shape, value)
    elif isinstance(shape, ListShape):
        for item in value:
            _render(
                element, str(shape.member.serialization.get("name", "item")), shape.member, item
            )
    else:
        element.text = _text(value)


def _text(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case datetime():
            return value.strftime("%Y-%m-%dT%H:%M:%S.") + f"{value.microsecond // 1000:03d}Z"
        case _:
            return str(value)
