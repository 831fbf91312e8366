"""The query protocol: requests of botocore are parsed, responses are parsed by botocore."""

from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.parsers import create_parser
from botocore.serialize import create_serializer
from ec2_sandbox.api.actions import ACTIONS
from ec2_sandbox.errors import ApiError
from ec2_sandbox.http import query_protocol
from hypothesis import given
from hypothesis import strategies as st

from tests.sandbox.conftest import Rig

# What XML 1.0 can carry; EC2 refuses the rest.
TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)
TAGS = st.lists(st.fixed_dictionaries({"Key": TEXTS, "Value": TEXTS}), min_size=1, max_size=3)
MOMENTS = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)).map(  # noqa: DTZ001 -- UTC below
    lambda moment: moment.replace(microsecond=moment.microsecond // 1000 * 1000, tzinfo=UTC)
)


def written_by_botocore(action: str, params: dict[str, Any]) -> dict[str, str]:
    """Serialize parameters with botocore."""
    operation = query_protocol.operation_named(action)
    request = create_serializer("ec2").serialize_to_request(params, operation)
    return {name: str(value) for name, value in request["body"].items()}


def read_by_botocore(action: str, body: bytes) -> dict[str, Any]:
    """Parse a document with botocore."""
    shape = query_protocol.operation_named(action).output_shape
    response = {"status_code": 200, "headers": {}, "body": body}
    assert shape is not None
    parsed: dict[str, Any] = create_parser("ec2").parse(response, shape)
    return parsed


@given(
    params=st.fixed_dictionaries(
        {"Size": st.integers(-(2**31), 2**31), "Encrypted": st.booleans(), "KmsKeyId": TEXTS},
        optional={
            "TagSpecifications": st.lists(
                st.fixed_dictionaries({"ResourceType": TEXTS, "Tags": TAGS}), min_size=1, max_size=3
            )
        },
    )
)
def test_reads_what_botocore_writes(params: dict[str, Any]) -> None:
    """Parsing is the inverse of botocore's serializer, for scalars, structures and lists."""
    params = {"ClientToken": "t", **params}
    form = written_by_botocore("CreateVolume", params)
    assert query_protocol.parse(query_protocol.operation_named("CreateVolume"), form) == params


@given(
    volume=st.fixed_dictionaries(
        {"VolumeId": TEXTS, "Size": st.integers(0, 2**31), "Encrypted": st.booleans()},
        optional={"Tags": TAGS, "CreateTime": MOMENTS, "Attachments": st.just([])},
    )
)
def test_botocore_reads_what_we_write(volume: dict[str, Any]) -> None:
    """Rendering is the inverse of botocore's parser, for scalars, structures, lists and times."""
    operation = query_protocol.operation_named("DescribeVolumes")
    body = query_protocol.render(operation, {"Volumes": [volume]}, "id-1")
    parsed = read_by_botocore("DescribeVolumes", body)
    assert parsed["Volumes"] == [volume]
    assert parsed["ResponseMetadata"]["RequestId"] == "id-1"


def test_long_lists_keep_their_order() -> None:
    """List elements are ordered by number, not as text."""
    ids = [f"vol-{number:08x}" for number in range(25)]
    form = written_by_botocore("DescribeVolumes", {"VolumeIds": ids})
    assert (
        query_protocol.parse(query_protocol.operation_named("DescribeVolumes"), form)["VolumeIds"]
        == ids
    )


def test_an_unknown_output_name_is_a_bug() -> None:
    """A result with a name that is not in the service model is an error."""
    with pytest.raises(KeyError):
        query_protocol.render(
            query_protocol.operation_named("CreateVolume"), {"Colour": "red"}, "id-1"
        )


def test_every_action_is_one_of_ec2() -> None:
    """Every action of the sandbox is an operation of EC2."""
    for action in ACTIONS:
        assert query_protocol.operation_named(action).name == action


def test_an_error_document_is_read_by_botocore() -> None:
    """The client gets code, message and request id of an error."""
    body = query_protocol.render_error(
        ApiError("IncorrectState", "vol-1 is not 'available'."), "id-2"
    )
    response = {"status_code": 400, "headers": {}, "body": body}
    shape = query_protocol.operation_named("AttachVolume").output_shape
    assert shape is not None
    parsed = create_parser("ec2").parse(response, shape)
    assert parsed["Error"] == {"Code": "IncorrectState", "Message": "vol-1 is not 'available'."}
    assert parsed["ResponseMetadata"]["RequestId"] == "id-2"


@pytest.mark.parametrize(
    ("form", "code"),
    [
        ({"Action": "CreateEverything"}, "InvalidAction"),
        ({}, "InvalidAction"),
        ({"Action": "RunInstances", "MinCount": "1", "MaxCount": "1"}, "UnsupportedOperation"),
        ({"Action": "DescribeVolumes", "Colour": "red"}, "UnknownParameter"),
        ({"Action": "DescribeVolumes", "Filter.x.Name": "size"}, "UnknownParameter"),
        ({"Action": "DescribeVolumes", "Filter.1.Colour": "red"}, "UnknownParameter"),
        ({"Action": "DescribeVolumes", "MaxResults.1": "5"}, "UnknownParameter"),
        ({"Action": "DescribeVolumes", "VolumeId": "vol-1"}, "InvalidParameterValue"),
        ({"Action": "DescribeVolumes", "MaxResults": "many"}, "InvalidParameterValue"),
        ({"Action": "DescribeVolumes", "DryRun": "perhaps"}, "InvalidParameterValue"),
        ({"Action": "DeleteVolume"}, "MissingParameter"),
    ],
)
def test_refuses_what_is_no_request(rig: Rig, form: dict[str, str], code: str) -> None:
    """A malformed request gets the error code of EC2 and is in the journal."""
    status, body = rig.query(**form)
    assert (status, f"<Code>{code}</Code>" in body) == (400, True), body
    assert rig.control.calls()[-1].outcome == code
