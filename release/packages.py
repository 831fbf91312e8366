"""The packages of a tree: what they put where, and what they run on a host."""

from pathlib import Path, PurePosixPath

import rpm_rs

from release.archives import Entry, Tree, deb
from release.wheels import Wheel

APP = "opt/ebs-autoscale"
DEBIAN_NAMES = {"x86_64": "amd64", "aarch64": "arm64"}

_SCRIPTS = Path(__file__).parent / "scripts"
# Where a package's files are sought: below /usr, or as configuration that an operator may change.
_SOUGHT = {
    "share/man/": "usr/share/man/",
    "share/bash-completion/": "usr/share/bash-completion/",
    "share/zsh/site-functions/": "{zsh}",
    "share/fish/": "usr/share/fish/",
    "share/ebs-autoscale/systemd/ebs-autoscale.c": "usr/lib/systemd/catalog/ebs-autoscale.c",
    "share/ebs-autoscale/systemd/": "usr/lib/systemd/system/",
    "share/ebs-autoscale/logrotate/": "etc/logrotate.d/",
    "LICENSE": "{license}",
}

# When each script is run: by its name in a package, and the first line in it. Both package managers
# also run the scripts of an upgrade, and tell them apart by an argument: deb-maintainer-scripts(7),
# and "Scriptlets" in Fedora's packaging guidelines.
_DEBIAN_SCRIPTS = {
    "preinst": ("before_install", "case $1 in install | upgrade) ;; *) exit 0 ;; esac"),
    "postinst": ("after_install", '[ "$1" = configure ] || exit 0'),
    "prerm": ("before_removal", '[ "$1" = remove ] || exit 0'),
    "postrm": ("after_removal", '[ "$1" = remove ] || exit 0'),
}
_RPM_SCRIPTS = {
    "pre_install_script": ("before_install", ":"),
    "post_install_script": ("after_install", ":"),
    "pre_uninstall_script": ("before_removal", '[ "$1" = 0 ] || exit 0'),
    "post_uninstall_script": ("after_removal", '[ "$1" = 0 ] || exit 0'),
}

_CONTROL = """\
Package: ebs-autoscale
Version: {version}
Architecture: {architecture}
Maintainer: {maintainer}
Section: admin
Priority: optional
Installed-Size: {kib}
Depends: python3 (>= 3.11) | python3.14 | python3.13 | python3.12 | python3.11, \
btrfs-progs, mount, util-linux
Recommends: fdisk
Description: {summary}
 {description}
"""
_DESCRIPTION = "It brings its Python libraries and needs no package index."


def debian(files: Tree, product: Wheel, architecture: str, *, epoch: int) -> tuple[str, bytes]:
    """The name and the content of a Debian package of a tree."""
    data = _installed(
        files,
        zsh="usr/share/zsh/vendor-completions/",
        license="usr/share/doc/ebs-autoscale/copyright",
    )
    version, machine = product.metadata["Version"], DEBIAN_NAMES[architecture]
    control = _CONTROL.format(
        version=version,
        architecture=machine,
        maintainer=product.metadata["Maintainer"],
        kib=sum(len(entry.content) for entry in data.values()) // 1024,
        summary=product.metadata["Summary"],
        description=_DESCRIPTION,
    )
    scripts = {
        name: Entry(f"#!/bin/sh\n{_script(*script)}".encode(), 0o755)
        for name, script in _DEBIAN_SCRIPTS.items()
    }
    kept = "".join(f"/{name}\n" for name in sorted(data) if _is_kept(name))
    control_files = {"control": Entry(control.encode()), "conffiles": Entry(kept.encode())}
    name = f"ebs-autoscale_{version}_{machine}.deb"
    return name, deb(control_files | scripts, data, epoch=epoch)


def rpm(files: Tree, product: Wheel, architecture: str, *, epoch: int) -> tuple[str, bytes]:
    """The name and the content of an RPM package of a tree."""
    metadata = product.metadata
    version, release = metadata["Version"], "1"
    builder = rpm_rs.PackageBuilder(
        "ebs-autoscale", version, metadata["License-Expression"], architecture, metadata["Summary"]
    )
    # For the rpm of every distribution with a Python that is new enough, such as 4.16 in Amazon
    # Linux 2023; and with nothing of the host that builds it.
    config = rpm_rs.BuildConfig(
        format=rpm_rs.RpmFormat.V4,
        compression=rpm_rs.CompressionType.Gzip,
        compression_level=9,
        source_date=epoch,
    )
    builder.using_config(config)
    builder.release(release)
    builder.build_host("localhost")
    builder.description(_DESCRIPTION)
    builder.packager(metadata["Maintainer"])
    builder.default_file_attrs(user="root", group="root")
    builder.default_dir_attrs(user="root", group="root", permissions=0o755)
    # Provided by each package of a Python, whatever its name. Fedora, RHEL 10: python3. RHEL 9 and
    # Amazon Linux 2023: python3.11 and others beside an older python3. openSUSE: python311.
    at_least = rpm_rs.DependencyFlags.GREATER | rpm_rs.DependencyFlags.EQUAL
    builder.requires("python(abi)", "3.11", at_least)
    builder.requires("util-linux")
    # Not required: Amazon Linux 2023 has no such package, and RHEL has none of its own.
    builder.recommends("btrfs-progs")
    for add, script in _RPM_SCRIPTS.items():
        getattr(builder, add)(_script(*script))
    data = _installed(
        files,
        zsh="usr/share/zsh/site-functions/",
        license="usr/share/licenses/ebs-autoscale/LICENSE",
    )
    _add_files(builder, data)
    package = builder.build().to_bytes()
    return f"ebs-autoscale-{version}-{release}.{architecture}.rpm", package


def _installed(files: Tree, **places: str) -> dict[str, Entry]:
    data = {f"{APP}/{name}": entry for name, entry in files.items()}
    data["usr/bin/ebs-autoscale"] = Entry(link=f"/{APP}/bin/ebs-autoscale", mode=0o777)
    for name, entry in files.items():
        for begins, place in _SOUGHT.items():
            if name.startswith(begins):
                data[place.format(**places) + name.removeprefix(begins)] = entry
                break
    return data


def _add_files(builder: rpm_rs.PackageBuilder, data: Tree) -> None:
    folders = {str(above) for name in data for above in PurePosixPath(name).parents}
    for folder in sorted(folder for folder in folders if "ebs-autoscale" in folder):
        builder.with_dir_entry(rpm_rs.FileOptions.dir(f"/{folder}", permissions=0o755))
    for name, entry in sorted(data.items()):
        if entry.link:
            builder.with_symlink(rpm_rs.FileOptions.symlink(f"/{name}", entry.link))
            continue
        options = rpm_rs.FileOptions.new(
            f"/{name}",
            permissions=entry.mode,
            config=_is_kept(name),
            noreplace=_is_kept(name),
            license="licenses/" in name,
        )
        builder.with_file_contents(entry.content, options)


def _is_kept(name: str) -> bool:
    """Whether an operator's changes of this file survive an upgrade."""
    return name.startswith("etc/")


def _script(name: str, when: str) -> str:
    return f"set -e\n{when}\n{(_SCRIPTS / f'{name}.sh').read_text()}"
