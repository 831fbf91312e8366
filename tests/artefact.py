"""Run the black-box tests against what `make dist` builds: `make test-release`."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.release import ENVIRONMENT, build, unpack_deb, unpack_rpm, unpack_tree

# No release has the demo. The second has boxes of its own for each package.
_NOT_FOR_RELEASES = ("tests/system/test_demo.py", "tests/boxes/test_packages.py")
_FORMS = {"tar.gz": unpack_tree, "deb": unpack_deb, "rpm": unpack_rpm}


def main() -> int:
    """Run the tests for each form; arguments are the forms, or options and paths for pytest."""
    arguments = sys.argv[1:]
    forms = [each for each in arguments if each in _FORMS] or list(_FORMS)
    options = [each for each in arguments if each not in _FORMS]
    if not any(each.startswith("tests/") for each in options):
        options += ["tests/system", "tests/boxes"]
    status = 0
    with tempfile.TemporaryDirectory(prefix="ebs-autoscale-artefact-") as folder:
        release = Path(folder, "release")
        build(release)
        for form in forms:
            tree = _FORMS[form](release, Path(folder, form))
            # As the packages do on a host.
            python = [str(tree / "bin/python"), "-I", "-S", "-m", "compileall", "-q"]
            subprocess.run([*python, str(tree / "lib")], env=ENVIRONMENT, check=True)
            sys.stdout.write(f"== the program in the {form}: {tree}\n")
            sys.stdout.flush()
            argv = [sys.executable, "-m", "pytest", "--numprocesses", "4", "--dist", "worksteal"]
            argv += [f"--ignore={each}" for each in _NOT_FOR_RELEASES]
            # The Python of this host: a version manager's is a slow script.
            environment = {**os.environ, "PATH": ENVIRONMENT["PATH"], "TESTED_TREE": str(tree)}
            status |= subprocess.run([*argv, *options], env=environment, check=False).returncode
    return status


if __name__ == "__main__":
    sys.exit(main())
