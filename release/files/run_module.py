"""Run a module of the libraries beside this file: `python -I -S FOLDER MODULE ARGUMENT...`.

Python puts the folder that it runs first into sys.path, also when isolated.
"""

import runpy
import sys

runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
