"""What a tree has."""

from collections.abc import Iterable
from pathlib import Path

from release.archives import Entry, Tree
from release.wheels import Wheel

FILES = Path(__file__).parent / "files"
PROGRAMS = ("bin/ebs-autoscale", "bin/python", "containers", "setup")

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
