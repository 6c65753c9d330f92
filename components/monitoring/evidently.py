"""Evidently, and nothing else of Loupe, is spoken to here: drift per column, reports, the dashboard's workspace."""

from __future__ import annotations

import html
import re
import warnings
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the dashboard is opened without pandas
    import pandas as pd

METHOD = "wasserstein"
PANELS = ("score", "p_value", "brightness", "contrast", "sharpness", "embedding_15")
LOOK = 'style="font:16px/1.5 sans-serif;margin:1em;padding:.5em 1em;border:2px solid #555"'
FARTHEST, VERDICT = "farthest column, in limits", "verdict"
VERDICTS = {"keep": 0.0, "watch": 1.0, "retrain": 2.0}


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

        self.limits, self.at, self.tags = limits, at, tags
        definition = DataDefinition(numerical_columns=list(reference.columns))
        metrics: Any = [ValueDrift(column=c, method=METHOD, threshold=limits[c]) for c in reference.columns]
        current, base = (Dataset.from_pandas(t, data_definition=definition) for t in (window, reference))
        self.snapshot: Any = Report(metrics, include_tests=True).run(current, base, timestamp=at, tags=tags)

    def values(self) -> dict[str, float]:
        """The normed Wasserstein distance of each column."""
        found = self.snapshot.dict()["metrics"]
        return {m["config"]["column"]: float(m["value"]) for m in found if m["config"]["type"].endswith("ValueDrift")}

    def save(self, path: Path, action: str, reasons: Sequence[str]) -> Path:
        """The HTML report with the verdict on top; self-contained, it opens offline."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.snapshot.save_html(str(path))
        said = "".join(f"<li>{html.escape(reason)}</li>" for reason in reasons)
        head = f"<section {LOOK}><h1>Verdict: {html.escape(action)}</h1><ul>{said}</ul></section>"
        text, begun = path.read_text("utf-8"), re.compile(r"<body[^>]*>")
        path.write_text(begun.sub(lambda body: f"{body[0]}{head}", text, count=1), "utf-8")
        return path

    def show(self, workspace: Path, project: str, action: str) -> None:
        """Add the comparison to the dashboard of *project*: distances, limits and verdict as one series each.

        Evidently takes a metric with another setting for another series. Limits change with the window, so they are
        values here and not settings.
        """
        from evidently.ui.workspace import Workspace

        space = Workspace.create(str(workspace))
        found = [p for p in space.list_projects() if p.name == project]
        place = found[0].id if found else _new_project(space, project)
        space.add_run(place, self._figures(action), include_data=False)

    def _figures(self, action: str) -> Any:
        """A snapshot with one number for each line of the dashboard."""
        import pandas as pd
        from evidently import DataDefinition, Dataset, Report
        from evidently.metrics import MeanValue

        values = self.values()
        told = {FARTHEST: max(values[c] / self.limits[c] for c in values), VERDICT: VERDICTS[action]}
        for column in (c for c in PANELS if c in values):
            told |= {distance(column): values[column], limit(column): self.limits[column]}
        table = Dataset.from_pandas(pd.DataFrame([told]), DataDefinition(numerical_columns=list(told)))
        metrics: Any = [MeanValue(column=name) for name in told]
        return Report(metrics).run(table, None, timestamp=self.at, tags=[*self.tags, action])


def distance(column: str) -> str:
    return f"{column}: distance"


def limit(column: str) -> str:
    return f"{column}: limit"


def _new_project(space: Any, name: str) -> Any:
    from evidently.sdk.panels import line_plot_panel

    project = space.create_project(name)
    whole = f"{FARTHEST}: above 1 the window is flagged. Verdict: 0 keep, 1 watch, 2 retrain."
    panel = line_plot_panel(title="Verdict", values=[_line(FARTHEST), _line(VERDICT)], description=whole)
    project.dashboard.add_panel(panel)
    for column in PANELS:
        lines = [_line(distance(column), "distance"), _line(limit(column), "limit")]
        project.dashboard.add_panel(line_plot_panel(title=f"Drift of {column}", values=lines, size="half"))
    return project.id


def _line(name: str, legend: str | None = None) -> Any:
    from evidently.sdk.models import PanelMetric

    return PanelMetric(legend=legend or name, metric="MeanValue", metric_labels={"column": name})


def dashboard_command(python: Path, workspace: Path, host: str, port: int) -> list[str]:
    """How Evidently's own web application is started on a workspace."""
    tool = str(python.with_name("evidently"))
    return [tool, "ui", "--workspace", str(workspace), "--host", host, "--port", str(port)]
