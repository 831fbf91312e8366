"""Run the command line: `python -m ec2_sandbox`."""

import sys

from ec2_sandbox.cli import main

sys.exit(main())
