"""Prefect only: wiring, schedules, retries, limits. The work itself is in ``components``."""

import components  # noqa: F401  (sets the environment switches before Prefect is loaded)
