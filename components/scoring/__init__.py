"""The name that the rooms decision and service once had together: scripts of line computers still import by it."""

import importlib
import sys

MOVED = {"batch": "decision.batch", "bundle": "decision.bundle", "inbox": "service.inbox"}
for _name, _place in MOVED.items():
    sys.modules[f"{__name__}.{_name}"] = importlib.import_module(f"components.{_place}")
