"""Pages of the tools in a real browser with everything refused but their own server: whole, and asking nobody."""

import os
import shutil
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.common.site import free_port
from components.datasets.manifest import make_manifest
from components.datasets.settings import DataSettings, ValidationSettings
from components.datasets.validation.validate import validate
from components.monitoring.columns import COLUMNS
from components.monitoring.evidently import PANELS, Comparison
from components.registry.curves import points
from components.registry.mlflow import Registry
from components.registry.settings import RegistrySettings
from tests.browser import Alone, browser, needed  # noqa: F401  (browser is a fixture)
from tests.service.conftest import listening

pytestmark = [needed, pytest.mark.slow]
ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
FILES = ("checks", "validation", "expectations", "drift", "plots")
REASON = "score moved by 0.90 standard deviations, limit 0.35"


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """Evidently's workspace after three windows with limits of their own, and the report of the last."""
    root, rng = tmp_path_factory.mktemp("watched"), np.random.default_rng(0)

    def drawn(n, shift):
        return pd.DataFrame(rng.normal(size=(n, len(COLUMNS))) + shift, columns=list(COLUMNS))

    for i, action in enumerate(("keep", "watch", "retrain")):
        at = datetime(2026, 1, 2, tzinfo=UTC) + timedelta(days=i)
        compared = Comparison(drawn(60, 0), drawn(40, 0.4 * i), dict.fromkeys(COLUMNS, 0.3 + 0.05 * i), at, ["line-1"])
        report = compared.save(root / "report.html", action, [REASON])
        compared.show(root / "workspace", "cells: line-1", action)
    return root / "workspace", report


@pytest.fixture(scope="module")
def plots(tmp_path_factory):
    """What `dvc plots show` makes of two curves with the configuration of this repository."""
    folder = tmp_path_factory.mktemp("plots")
    (folder / ".dvc").mkdir()
    for name in ("config", "plots.html"):
        shutil.copy(ROOT / ".dvc" / name, folder / ".dvc")
    (folder / "roc.csv").write_text("fpr,tpr\n0,0\n0.1,0.8\n1,1\n")
    (folder / "dvc.yaml").write_text("plots:\n  - roc.csv:\n      x: fpr\n      y: tpr\n")
    subprocess.run(["git", "init", "-q", folder], check=True)
    subprocess.run([BIN / "dvc", "plots", "show"], cwd=folder, check=True, capture_output=True)
    return folder / "dvc_plots" / "index.html"


@pytest.fixture(scope="module")
def pages(product, watched, plots, tmp_path_factory):
    root = tmp_path_factory.mktemp("checked")
    make_manifest(product, root / "manifest", DataSettings("folder", "tiles"))
    docs = validate(root / "manifest", product, root / "validation", ValidationSettings(min_train_normals=2)) / "docs"
    whole = [next((docs / kind).rglob("*.html")) for kind in ("validations", "expectations")]
    return dict(zip(FILES, (docs / "index.html", *whole, watched[1], plots), strict=True))


@pytest.mark.parametrize("name", FILES)
def test_a_page_of_a_tool_opens_from_the_disk_and_asks_nobody(pages, browser, name):  # noqa: F811
    seen = Alone(browser, pages[name].as_uri(), "file:")
    seen.page.wait_for_timeout(300)
    assert seen.asked == []
    assert seen.said == []
    text = seen.page.inner_text("body")
    assert "newsletter" not in text.lower()
    assert len(text) > 100 or name == "plots"
    if name == "drift":
        assert "Verdict: retrain" in text
        assert REASON in text
    if name == "plots":
        assert seen.page.locator("svg polyline").count() == 1
        assert {"fpr", "tpr"} <= set(seen.page.locator("svg text").all_text_contents())
    seen.context.close()


def test_a_page_that_asks_is_seen(pages, browser, tmp_path):  # noqa: F811
    html = pages["checks"].read_text() + '<img src="https://example.org/a.png">'
    (tmp_path / "bad.html").write_text(html)
    seen = Alone(browser, (tmp_path / "bad.html").as_uri(), "file:")
    assert seen.asked == ["https://example.org/a.png"]
    seen.context.close()


@pytest.fixture
def started(tmp_path):
    """Start a server that ends with the test; returns its address."""
    running = []

    def begin(command, **more):
        port = free_port()
        words = [str(word).replace("PORT", str(port)) for word in command]
        with (tmp_path / "log").open("w") as log:
            told = {name: value.replace("PORT", str(port)) for name, value in more.items()}
            environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"} | told
            running.append(subprocess.Popen(words, env=environment, stdout=log, stderr=log, start_new_session=True))
        listening(port, running[-1])
        return f"http://127.0.0.1:{port}"

    yield begin
    for process in running:
        os.killpg(process.pid, signal.SIGTERM)  # MLflow's command starts a server below it
        process.wait(30)


def test_evidentlys_dashboard_has_one_line_for_distance_and_limit(watched, started, browser):  # noqa: F811
    address = started([BIN / "evidently", "ui", "--workspace", watched[0], "--host", "127.0.0.1", "--port", "PORT"])
    seen, answers = Alone(browser, address, address), []
    seen.page.on("response", lambda one: answers.append(one.json()) if "series" in one.url and one.ok else None)
    seen.page.get_by_text("cells: line-1").first.click()
    seen.page.get_by_text(f"Drift of {PANELS[0]}").first.wait_for()
    seen.page.wait_for_timeout(3000)
    assert seen.asked == []
    assert "Verdict" in seen.page.inner_text("body")
    drawn = [one for answer in answers for one in answer["series"]]
    assert len(drawn) >= 2 * len(PANELS)
    assert all(len([v for v in one["values"] if v is not None]) == 3 for one in drawn)  # no line is torn
    seen.context.close()


PREFECT_PAGES = ("runs", "flows", "deployments", "work-pools", "artifacts", "artifacts/key/validation", "settings")
FLOW = """
from prefect import flow
from prefect.artifacts import create_table_artifact

@flow(name="checked")
def checked():
    create_table_artifact([{"check": "size", "said": "as expected"}], key="validation")

checked()
"""


def test_prefects_pages_show_runs_and_artefacts_and_ask_nobody(tmp_path, started, browser):  # noqa: F811
    lines = (ROOT / "components" / "environment.env").read_text().splitlines()
    ours = dict(line.split("=", 1) for line in lines if line.startswith("PREFECT_"))
    ours |= {"PREFECT_HOME": str(tmp_path / "prefect"), "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false"}
    command = [BIN / "prefect", "server", "start", "--host", "127.0.0.1", "--port", "PORT"]
    address = started(command, **ours, PREFECT_API_URL="http://127.0.0.1:PORT/api")
    environment = os.environ | ours | {"PREFECT_API_URL": f"{address}/api"}
    subprocess.run([sys.executable, "-c", FLOW], env=environment, check=True, capture_output=True)
    seen = Alone(browser, address, address)
    said = {}
    for name in PREFECT_PAGES:
        seen.page.goto(f"{address}/{name}")
        seen.page.wait_for_load_state("networkidle")
        said[name] = seen.page.inner_text("body")
    assert "checked" in said["flows"]
    assert "validation" in said["artifacts"]
    assert "Created validation" in said["artifacts/key/validation"]
    assert seen.asked == []
    assert seen.said == []
    seen.context.close()


def test_mlflow_opens_on_models_with_curves_and_without_its_note(tmp_path, started, browser):  # noqa: F811
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "MODEL_CARD.md").write_text("# Card\n")
    registry = Registry(RegistrySettings(str(tmp_path / "registry")))
    drawn = list(points([{"phase": "flow", "epoch": n, "loss": 1 / (n + 1)} for n in range(3)]))
    registry.register("cells", tmp_path / "bundle", {"seed": 0}, {"auroc": 0.9}, {"detector": "fastflow"}, ("x", drawn))
    server = [sys.executable, ROOT / "infra" / "mlflow_pages.py", "--backend-store-uri", registry.uri]
    place = ["--artifacts-destination", registry.place, "--host", "127.0.0.1", "--port", "PORT", "--workers", "1"]
    address = started([*server, *place], MLFLOW_DISABLE_TELEMETRY="true")
    seen = Alone(browser, address, address)
    seen.page.get_by_role("link", name="Models").or_(seen.page.get_by_text("Model registry")).first.wait_for()
    seen.page.wait_for_timeout(1000)
    assert "telemetry" not in seen.page.inner_text("body").lower()
    assert "Ask questions about" not in seen.page.inner_text("body")  # the assistant
    seen.page.goto(f"{address}/#/models")
    seen.page.get_by_text("cells", exact=True).first.click()
    seen.page.get_by_text("Visual inspection of cells").first.wait_for()
    seen.page.goto(f"{address}/#/experiments/{registry.experiment}/runs")
    seen.page.get_by_text("cells fastflow").first.wait_for()
    assert seen.asked == []
    seen.context.close()
