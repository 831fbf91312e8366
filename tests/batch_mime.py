"""Multi-part user data for hosts of containers: `python -m tests.batch_mime` writes them.

They are the user data for any host with other settings, so that there is one script to maintain.
"""

from pathlib import Path

from tests.userdata import USERDATA, with_settings

FILE = Path(__file__).parents[1] / "cloud-init/batch.mime"

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


if __name__ == "__main__":
    FILE.write_text(text(), "utf-8")
