"""The files that make plain Debian look like an EC2 instance, and keep it off the host."""

import shutil
from pathlib import Path
from uuid import uuid4

# Units that would change the host, wait for a terminal, or only take time.
_MASKED = (
    *("systemd-sysctl.service", "systemd-modules-load.service", "systemd-binfmt.service"),
    *("systemd-random-seed.service", "systemd-hwdb-update.service", "systemd-pstore.service"),
    *("kmod-static-nodes.service", "systemd-tmpfiles-setup-dev.service", "modprobe@.service"),
    *("console-getty.service", "getty.target", "systemd-journald-audit.socket"),
    *("dev-hugepages.mount", "sys-kernel-debug.mount", "sys-kernel-tracing.mount"),
    *("sys-kernel-config.mount", "sys-fs-fuse-connections.mount"),
    *("proc-sys-fs-binfmt_misc.automount", "e2scrub_reap.service", "e2scrub_all.timer"),
    *("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "fstrim.timer"),
)
_FILES = {
    "etc/hostname": "box\n",
    "etc/hosts": "127.0.0.1 localhost box\n",
    "etc/fstab": "",
    "etc/environment": "AWS_ENDPOINT_URL_EC2=http://169.254.169.254\n",
    "etc/systemd/system.conf.d/box.conf": (
        "[Manager]\nDefaultEnvironment=AWS_ENDPOINT_URL_EC2=http://169.254.169.254\n"
    ),
    "etc/systemd/journald.conf.d/box.conf": (
        "[Journal]\nStorage=persistent\nRateLimitBurst=0\nReadKMsg=no\n"
    ),
    # The program that udevd runs needs the network to query the sandbox.
    "etc/systemd/system/systemd-udevd.service.d/box.conf": "[Service]\nIPAddressDeny=\n",
    # Events go to every network namespace of the host, so only those of our devices are triggered.
    "etc/systemd/system/systemd-udev-trigger.service.d/box.conf": (
        "[Service]\nExecStart=\nExecStart=udevadm trigger --action=add --subsystem-match=block"
        " --attr-match=loop/backing_file\n"
    ),
    # Addresses exist before the first process.
    "etc/cloud/cloud.cfg.d/99-box.cfg": (
        "datasource_list: [NoCloud, None]\nnetwork: {config: disabled}\n"
        "locale: false\nssh_genkeytypes: []\n"
    ),
}

_RULES = """\
# Events come from every loop device of the host. Devices that are not of this box get no node, no
# link, and are not probed.
SUBSYSTEM!="block", GOTO="box_end"
ACTION=="remove", GOTO="box_end"
ATTRS{loop/backing_file}=="*NAME/*", GOTO="box_ours"
ENV{UDEV_DISABLE_PERSISTENT_STORAGE_RULES_FLAG}="1", ENV{SYSTEMD_READY}="0"
TEST=="/dev/%k", RUN+="/bin/rm -f /dev/%k"
GOTO="box_end"
LABEL="box_ours"
PROGRAM="/usr/bin/python3 -I -S /usr/lib/box/device.py %k %M %m", RESULT=="vol*", \
  SYMLINK+="disk/by-id/nvme-Amazon_Elastic_Block_Store_%c", \
  ENV{ID_MODEL}="Amazon Elastic Block Store", ENV{ID_SERIAL_SHORT}="%c"
LABEL="box_end"
"""


def furnish(root: Path, *, name: str, user_data: str) -> None:
    """Write the files of a box into the upper layer of its root, before its first boot.

    `name` is also the folder of the files behind its devices, by which they are recognised. Without
    user data cloud-init is disabled.
    """
    for unit in _MASKED:
        _write(root / "etc/systemd/system" / unit).symlink_to("/dev/null")
    for place, text in _FILES.items():
        _write(root / place).write_text(text, "utf-8")
    # An empty file would make this a first boot, which applies all presets.
    _write(root / "etc/machine-id").write_text(f"{uuid4().hex}\n", "ascii")
    _write(root / "etc/udev/rules.d/00-box.rules").write_text(_RULES.replace("NAME", name), "utf-8")
    program = _write(root / "usr/lib/box/device.py")
    shutil.copy(Path(__file__).with_name("device.py"), program)
    (root / "var/log/journal").mkdir(parents=True)
    if not user_data:
        _write(root / "etc/cloud/cloud-init.disabled").touch()
        return
    seed = root / "var/lib/cloud/seed/nocloud"
    _write(seed / "user-data").write_text(user_data, "utf-8")
    (seed / "meta-data").write_text(f"instance-id: {name}\n", "ascii")


def _write(place: Path) -> Path:
    place.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    return place
