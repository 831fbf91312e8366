"""`python -m ebs_autoscale`: the same as the `ebs-autoscale` command."""

import sys

from ebs_autoscale.cli import main

sys.exit(main())
