"""In place of a process of a training: ``python -m tests.failing FOLDER RANK`` ends as FOLDER/asked.json says."""

import json
import os
import signal
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    folder, rank = Path(sys.argv[1]), sys.argv[2]
    how = json.loads((folder / "asked.json").read_text())["asked"]["name"]
    if rank == "0":
        time.sleep(600)  # as one that waits for the other
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    kind, said = how.split(": ", 1)
    (folder / f"{rank}.failed.json").write_text(json.dumps({"kind": kind, "said": said}))
    sys.exit(1)
