"""The filesystem of / is like any other, but that nobody can unmount it."""

import pytest

from ebs_autoscale.errors import Unfit
from ebs_autoscale.filesystems.mounted import shut_down
from ebs_autoscale.filesystems.one_device.filesystem import require_resizable
from ebs_autoscale.filesystems.one_device.superblock import Superblock
from ebs_autoscale.host import paths
from ebs_autoscale.host.systemd import mount_unit


@pytest.mark.parametrize(("path", "wanted"), [("/", "fsck.mode=force"), ("/data", "umount /data")])
def test_how_it_is_checked(path: str, wanted: str) -> None:
    """What cannot be unmounted is checked at a boot."""
    damaged = Superblock(kind="ext4", uuid="", has_errors=True)
    with pytest.raises(Unfit) as caught:
        require_resizable(damaged, "nvme0n1p1", path)
    for error in (caught.value, shut_down(path)):
        assert wanted in error.hint
        assert ("umount /" in error.hint) == (path != "/")


def test_its_names() -> None:
    """Its files and its unit have names as systemd makes them."""
    assert mount_unit("/") == "-.mount"
    places = (paths.status_file("/"), paths.pid_file("/"), paths.init_mark("/"))
    assert [path.name for path in places] == ["-.json", "-.pid", "-.init"]
