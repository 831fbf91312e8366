"""The program under test: that of this checkout, or of a release; see `make test-release`."""

import os
import sys

TREE = os.environ.get("TESTED_TREE", "")
"""The folder of the release under test; empty when it is the checkout."""

PROGRAM = [f"{TREE}/bin/ebs-autoscale"] if TREE else [sys.executable, "-I", "-m", "ebs_autoscale"]
"""The command line up to the first option."""
