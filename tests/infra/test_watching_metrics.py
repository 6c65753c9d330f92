"""Alert rules and dashboard: their syntax, what they do, and that every metric in them is one that the service has."""

import json
import re
from types import SimpleNamespace

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from components.core.errors import RequestError
from components.service.line.outputs import Standing
from components.service.measures import Measures
from components.service.settings import ServiceSettings
from tests.infra.reading import INFRA, call

PROMETHEUS, DASHBOARD = INFRA / "prometheus", INFRA / "grafana/dashboards/loupe.json"
RULES = [rule for group in yaml.safe_load((PROMETHEUS / "rules.yml").read_text())["groups"] for rule in group["rules"]]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
PANELS = json.loads(DASHBOARD.read_text())["panels"]
ASKED = [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]]
LABELS = {"instance", "job", "le"}


@pytest.fixture(scope="module")
def exported():
    """Every sample that the service exports once it has scored and refused something: name to its labels."""
    measures = Measures()
    measures.scored([{"decision": "normal", "source": "line", "latency_ms": 1.0}])
    measures.refused(RequestError(400, "x"))
    shipper = SimpleNamespace(shipped=0, failing=False)
    service = SimpleNamespace(
        batcher=SimpleNamespace(waiting=0, batches=0),
        recorder=SimpleNamespace(shipper=shipper),
        champion=SimpleNamespace(reloads=0),
        shadow=None,
        line=SimpleNamespace(outputs=SimpleNamespace(standing=lambda: [Standing("mes", 0, 0, 0, 0, False)], dropped=0)),
    )
    found = {}
    for family in text_string_to_metric_families(measures.render(service).decode()):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def selectors(expression):
    """Names of metrics and recorded rules in an expression, each with the labels that it chooses by."""
    found = re.findall(r"\b((?:loupe|up)[\w:]*)\b(?:\{([^}]*)\})?", expression)
    return [(name, set(re.findall(r"(\w+)\s*[=!]~?", chosen))) for name, chosen in found if name != "loupe"]


@pytest.mark.parametrize(("place", "expression"), [*ASKED, *[(str(r), r["expr"]) for r in RULES]])
def test_every_metric_and_label_is_one_that_the_service_exports(place, expression, exported):
    named = selectors(expression)
    assert named, place
    for name, labels in named:
        if name == "up" or name in RECORDED:
            continue
        assert name in exported, (place, name)
        assert labels <= exported[name] | LABELS, (place, name, labels)
    for by in re.findall(r"(?:by|on) \(([^)]*)\)", expression):
        for label in by.replace(" ", "").split(","):
            assert any(label in exported.get(name, LABELS) | LABELS for name, _ in named), (place, label)


def test_every_metric_of_the_service_is_on_the_dashboard(exported):
    shown = {name for _, expression in [*ASKED, *[("", r["expr"]) for r in RULES]] for name, _ in selectors(expression)}
    families = {re.sub(r"_(total|bucket|sum|count|created)$", "", name) for name in exported}
    assert families <= {re.sub(r"_(total|bucket)$", "", name) for name in shown}


def test_promtool_reads_the_files():
    call("promtool", "check", "config", PROMETHEUS / "prometheus.yml")
    call("promtool", "check", "rules", "--lint-fatal", PROMETHEUS / "rules.yml")


def test_alerts_fire_when_they_should_and_not_else():
    call("promtool", "test", "rules", PROMETHEUS / "rules_test.yml")
    tried = yaml.safe_load((PROMETHEUS / "rules_test.yml").read_text())["tests"]
    firing = {a["alertname"] for t in tried for a in t.get("alert_rule_test", []) if a["exp_alerts"]}
    assert firing == set(ALERTS)


def test_every_alert_says_what_happened_and_what_to_do():
    for alert, rule in ALERTS.items():
        assert {"summary", "action"} <= rule["annotations"].keys(), alert
        assert rule["labels"]["severity"] in ("page", "ticket"), alert


def test_the_queue_s_alert_knows_the_queue_s_length():
    queue = ServiceSettings().queue
    rule = ALERTS["LoupeQueueFills"]
    assert f"> {queue // 2}" in rule["expr"]
    assert f"({queue})" in rule["annotations"]["action"]


def test_the_dashboard_asks_the_source_that_is_provisioned():
    (source,) = yaml.safe_load((INFRA / "grafana/provisioning/datasources/prometheus.yaml").read_text())["datasources"]
    used = set(re.findall(r'"uid": "([^"]+)"', json.dumps(PANELS)))
    assert used == {source["uid"]}
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)


def test_no_two_panels_lie_on_each_other():
    taken = set()
    for panel in PANELS:
        place = panel["gridPos"]
        cells = {(place["x"] + i, place["y"] + j) for i in range(place["w"]) for j in range(place["h"])}
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
