"""``python -m benchmarks NAME ...`` is ``loupe bench NAME ...``."""

import sys

from benchmarks.questions import run
from components.core.boundary import boundary
from components.core.progress import show_logs

if __name__ == "__main__":
    show_logs()
    with boundary():
        run(sys.argv[1:])
