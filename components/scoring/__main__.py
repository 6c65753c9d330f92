"""``python -m components.scoring``: what ``python -m components.decision`` was called."""

import runpy

runpy.run_module("components.decision", run_name="__main__", alter_sys=True)
