"""``python -m components.scoring``: what ``python -m components.decision`` was called; line computers still say so."""

import runpy

if __name__ == "__main__":
    runpy.run_module("components.decision", run_name="__main__", alter_sys=True)
