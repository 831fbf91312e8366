"""Multi-part user data for hosts of containers: `python -m tests.batch_mime` writes them.

They are the user data for any host with other settings, so that there is one script to maintain.
The CloudFormation template gets them too, since it cannot read a file.
"""

from pathlib import Path

from tests.userdata import USERDATA, with_settings

ROOT = Path(__file__).parents[1]
FILE = ROOT / "cloud-init/batch.mime"
CLOUDFORMATION = ROOT / "docs/aws/cloudformation.yaml"
# Their user data are the last in it.
_BEGINNING = "Fn::Base64: !Sub |\n"
# Settings that are parameters there, in double quotes for a URL with $(uname -m).
_PARAMETERS = {
    "URL": "ReleaseUrl",
    "SHA256": "ReleaseSha256",
    "BTRFS_URL": "BtrfsUrl",
    "BTRFS_SHA256": "BtrfsSha256",
}

_SETTINGS = {"INIT_OPTIONS": "--mode 1777", "CONTAINERS": "move"}

_HEAD = """\
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary="==EBS-AUTOSCALE=="

--==EBS-AUTOSCALE==
Content-Type: text/cloud-config; charset="us-ascii"

#cloud-config
# For AWS Batch, ECS, PCS and EKS: as userdata.yaml, but multi-part, with a filesystem that every
# job can write to, and with the data of Docker and containerd on it. Set URL and SHA256 below, and
# on Amazon Linux BTRFS_URL and BTRFS_SHA256. Where to put this and what else it takes is in
# docs/containers.md.
"""
_TAIL = """
--==EBS-AUTOSCALE==--
"""


def text() -> str:
    """What the file has to be."""
    _, _, config = USERDATA.partition("\nmerge_how:")
    return f"{_HEAD}merge_how:{with_settings(config, **_SETTINGS)}{_TAIL}"


def cloudformation() -> str:
    """What the template has to be, given what is before the user data in it."""
    userdata = text()
    for setting, parameter in _PARAMETERS.items():
        empty = f"\n      {setting}=\n"
        assert empty in userdata
        userdata = userdata.replace(empty, f'\n      {setting}="${{{parameter}}}"\n')
    lines = (f"{' ' * 12}{line}".rstrip() for line in userdata.splitlines())
    before, beginning, _ = CLOUDFORMATION.read_text("utf-8").partition(_BEGINNING)
    return before + beginning + "".join(f"{line}\n" for line in lines)


if __name__ == "__main__":
    FILE.write_text(text(), "utf-8")
    CLOUDFORMATION.write_text(cloudformation(), "utf-8")
