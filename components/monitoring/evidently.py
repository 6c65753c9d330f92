"""Evidently, and nothing else of Loupe, is spoken to here: drift per column, reports, the dashboard's workspace."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the dashboard is opened without pandas
    import pandas as pd

METHOD = "wasserstein"
PANELS = ("score", "p_value", "brightness", "contrast", "sharpness", "embedding_15")


class Comparison:
    """One window compared with the reference; *limits* per column are shown as the tests' thresholds."""

    def __init__(
        self,
        reference: pd.DataFrame,
        window: pd.DataFrame,
        limits: Mapping[str, float],
        at: datetime,
        tags: list[str],
    ) -> None:
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        from evidently import DataDefinition, Dataset, Report
        from evidently.metrics import ValueDrift

        definition = DataDefinition(numerical_columns=list(reference.columns))
        metrics: Any = [ValueDrift(column=c, method=METHOD, threshold=limits[c]) for c in reference.columns]
        current, base = (Dataset.from_pandas(t, data_definition=definition) for t in (window, reference))
        self.snapshot: Any = Report(metrics, include_tests=True).run(current, base, timestamp=at, tags=tags)

    def values(self) -> dict[str, float]:
        """The normed Wasserstein distance of each column."""
        found = self.snapshot.dict()["metrics"]
        return {m["config"]["column"]: float(m["value"]) for m in found if m["config"]["type"].endswith("ValueDrift")}

    def save(self, path: Path) -> Path:
        """The HTML report; self-contained, it opens offline."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.snapshot.save_html(str(path))
        return path

    def show(self, workspace: Path, project: str) -> None:
        """Add the comparison to the dashboard of *project*."""
        from evidently.ui.workspace import Workspace

        space = Workspace.create(str(workspace))
        found = [p for p in space.list_projects() if p.name == project]
        space.add_run(found[0].id if found else _new_project(space, project), self.snapshot, include_data=False)


def _new_project(space: Any, name: str) -> Any:
    from evidently.sdk.models import PanelMetric
    from evidently.sdk.panels import line_plot_panel

    project = space.create_project(name)
    for column in PANELS:
        metric = PanelMetric(legend="normed Wasserstein", metric="ValueDrift", metric_labels={"column": column})
        project.dashboard.add_panel(line_plot_panel(title=f"Drift of {column}", values=[metric]))
    return project.id


def dashboard_command(python: Path, workspace: Path, host: str, port: int) -> list[str]:
    """How Evidently's own web application is started on a workspace."""
    tool = str(python.with_name("evidently"))
    return [tool, "ui", "--workspace", str(workspace), "--host", host, "--port", str(port)]
