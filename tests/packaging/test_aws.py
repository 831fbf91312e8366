"""The examples of launch template, role and policy for CloudFormation and Terraform."""

import email
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import hcl2
import yaml

from tests import batch_mime
from tests.unit.samples import policy_of

FOLDER = batch_mime.CLOUDFORMATION.parent


class _Loader(yaml.SafeLoader):
    """Reads a function of CloudFormation as its argument."""


_Loader.add_multi_constructor(
    "!",
    lambda loader, _, node: (
        loader.construct_scalar(node)
        if isinstance(node, yaml.ScalarNode)
        else loader.construct_sequence(node)
    ),
)


def resources() -> dict[str, Any]:
    """The properties of each resource of the template."""
    text = batch_mime.CLOUDFORMATION.read_text("utf-8")
    found = yaml.load(text, _Loader)["Resources"]  # noqa: S506 -- derived from the safe one
    return {name: resource["Properties"] for name, resource in found.items()}


def test_cloudformation_accepts_it() -> None:
    """Also without a warning, by AWS's own schemas."""
    linter = Path(sys.executable).parent / "cfn-lint"
    argv = [str(linter), str(batch_mime.CLOUDFORMATION)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_policy_is_the_printed_one() -> None:
    """In both examples."""
    [policy] = resources()["Role"]["Policies"]
    assert policy["PolicyDocument"] == policy_of()
    assert json.loads((FOLDER / "policy.json").read_text()) == policy_of()
    assert 'file("${path.module}/policy.json")' in (FOLDER / "main.tf").read_text()


def test_the_user_data_are_the_shipped_ones() -> None:
    """With the four settings as parameters; `python -m tests.batch_mime` writes them."""
    assert batch_mime.CLOUDFORMATION.read_text("utf-8") == batch_mime.cloudformation()
    userdata = resources()["LaunchTemplate"]["LaunchTemplateData"]["UserData"]["Fn::Base64"]
    for name in ("ReleaseUrl", "ReleaseSha256", "BtrfsUrl", "BtrfsSha256"):
        assert userdata.count(f'="${{{name}}}"\n') == 1
    assert userdata.count("${") == 4
    message = email.message_from_string(userdata)
    assert message.is_multipart()
    assert not message.defects


def test_terraform_can_read_it() -> None:
    """It has the syntax, says the same as the template, and replaces what is there to replace."""
    with (FOLDER / "main.tf").open() as file:
        parsed = hcl2.load(file)
    [template] = [
        resource['"aws_launch_template"']['"hosts"']
        for resource in parsed["resource"]
        if '"aws_launch_template"' in resource
    ]
    data = resources()["LaunchTemplate"]["LaunchTemplateData"]
    [metadata] = template["metadata_options"]
    assert metadata["http_tokens"].strip('"') == data["MetadataOptions"]["HttpTokens"] == "required"
    [device] = template["block_device_mappings"]
    [root] = data["BlockDeviceMappings"]
    assert device["device_name"].strip('"') == root["DeviceName"]
    assert device["ebs"][0]["encrypted"] is root["Ebs"]["Encrypted"] is True
    kinds = [each["ResourceType"] for each in data["TagSpecifications"]]
    assert [each["resource_type"].strip('"') for each in template["tag_specifications"]] == kinds
    text = (FOLDER / "main.tf").read_text()
    for setting in ("URL", "SHA256", "BTRFS_URL", "BTRFS_SHA256"):
        assert f'"\\n      {setting}=\\n", ' in text
        assert batch_mime.text().count(f"\n      {setting}=\n") == 1
