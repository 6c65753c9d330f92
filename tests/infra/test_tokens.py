"""Both tokens of the service reach it everywhere, from a secret and never from a committed value."""

from pathlib import Path

from components.service.settings import ServiceSettings
from infra.compose.keys import drawn
from tests.infra.reading import SYSTEMD, built, compose, pods

TOKENS = (ServiceSettings().token_variable, ServiceSettings().operator_variable)


def test_compose_mounts_both_as_files():
    known = compose()
    targets = {one["target"]: one["source"] for one in known["services"]["scorer"]["secrets"]}
    for name in TOKENS:
        assert known["secrets"][targets[name]]["file"].endswith(targets[name])
        assert len(drawn()[targets[name]]) >= 32


def test_kubernetes_takes_both_from_the_secret_and_starts_without_the_second():
    (pod,) = [pod for name, pod in pods(built("single-node")) if name == "scorer"]
    told = {one["name"]: one for one in pod["spec"]["containers"][0]["env"]}
    refs = [told[name]["valueFrom"]["secretKeyRef"] for name in TOKENS]
    assert [(ref["key"], ref.get("optional", False)) for ref in refs] == [(TOKENS[0], False), (TOKENS[1], True)]
    assert f"{TOKENS[1]}=" in Path("docs/deploying.md").read_text()


def test_systemd_names_both_without_a_value():
    lines = (SYSTEMD / "environment.example").read_text().splitlines()
    assert [name for name in TOKENS if f"# {name}=" not in lines] == []
