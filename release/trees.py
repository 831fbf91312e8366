"""What a tree has, and what of it a package puts where."""

from collections.abc import Iterable
from pathlib import Path

from release.archives import Entry, Tree
from release.wheels import Wheel

FILES = Path(__file__).parent / "files"
APP = "opt/ebs-autoscale"
PROGRAMS = ("bin/ebs-autoscale", "bin/python", "containers", "setup")
DEBIAN_NAMES = {"x86_64": "amd64", "aarch64": "arm64"}

# From the checkout, besides what the wheel installs. Their places below `share` are those where the
# shells look.
_SHARED = {
    "completion/bash/ebs-autoscale": "share/bash-completion/completions/ebs-autoscale",
    "completion/zsh/_ebs-autoscale": "share/zsh/site-functions/_ebs-autoscale",
    "completion/fish/ebs-autoscale.fish": "share/fish/vendor_completions.d/ebs-autoscale.fish",
    "cloud-init/*": "share/ebs-autoscale/cloud-init/",
    "LICENSE": "LICENSE",
    "CHANGELOG.md": "CHANGELOG.md",
    "README.md": "README.md",
}
# Where a package's files are sought: below /usr, or as configuration that an operator may change.
_SOUGHT = {
    "share/man/": "usr/share/man/",
    "share/bash-completion/": "usr/share/bash-completion/",
    "share/zsh/site-functions/": "usr/share/zsh/vendor-completions/",
    "share/fish/": "usr/share/fish/",
    "share/ebs-autoscale/systemd/ebs-autoscale.c": "usr/lib/systemd/catalog/ebs-autoscale.c",
    "share/ebs-autoscale/systemd/": "usr/lib/systemd/system/",
    "share/ebs-autoscale/logrotate/": "etc/logrotate.d/",
}

_CONTROL = """\
Package: ebs-autoscale
Version: {version}
Architecture: {architecture}
Maintainer: ebs-autoscale <root@localhost>
Section: admin
Priority: optional
Installed-Size: {kib}
Depends: python3 (>= 3.11) | python3.14 | python3.13 | python3.12 | python3.11, \
btrfs-progs, mount, util-linux
Description: {summary}
 It brings its Python libraries and needs no package index.
"""


def tree(root: Path, product: Wheel, dependencies: Iterable[Wheel], bom: bytes) -> Tree:
    """The files that run in any folder."""
    found = {place: Entry((FILES / Path(place).name).read_bytes(), 0o755) for place in PROGRAMS}
    found |= {
        "lib/__main__.py": Entry((FILES / "run_module.py").read_bytes()),
        "share/ebs-autoscale/sbom.cdx.json": Entry(bom),
    }
    for wheel in (*dependencies, product):
        found |= wheel.files
    for pattern, place in _SHARED.items():
        for path in root.glob(pattern):
            name = place + path.name if place.endswith("/") else place
            found[name] = Entry(path.read_bytes())
    return found


def debian(files: Tree, product: Wheel, architecture: str) -> tuple[Tree, Tree]:
    """The control files and the content of a Debian package of a tree."""
    data = {f"{APP}/{name}": entry for name, entry in files.items()}
    data["usr/bin/ebs-autoscale"] = Entry(link=f"/{APP}/bin/ebs-autoscale", mode=0o777)
    data["usr/share/doc/ebs-autoscale/copyright"] = files["LICENSE"]
    for name, entry in files.items():
        for begins, place in _SOUGHT.items():
            if name.startswith(begins):
                data[place + name.removeprefix(begins)] = entry
                break
    control = _CONTROL.format(
        version=product.metadata["Version"],
        architecture=DEBIAN_NAMES[architecture],
        kib=sum(len(entry.content) for entry in data.values()) // 1024,
        summary=product.metadata["Summary"],
    )
    scripts = {
        name: Entry((FILES / name).read_bytes(), 0o755) for name in ("postinst", "prerm", "postrm")
    }
    kept = "".join(f"/{name}\n" for name in sorted(data) if name.startswith("etc/"))
    control_files = {"control": Entry(control.encode()), "conffiles": Entry(kept.encode())}
    return control_files | scripts, data
