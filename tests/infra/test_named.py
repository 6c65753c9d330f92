"""Every variable, command, option, port, path and module that infra/ names is one that the programs know."""

import importlib
import re
import sys
from pathlib import Path

import pytest
import yaml

from infra.stack import PORTS
from tests.infra.reading import (
    BIN,
    INFRA,
    KUBERNETES,
    PROJECT,
    SYSTEMD,
    UNITS,
    built,
    commands,
    compose,
    pods,
    told,
    tool,
    variables,
)

# Not ours: of the system, of Docker's images of others, of Python, of the S3 client.
OTHERS = {
    *("PATH", "HOME", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "MPLCONFIGDIR", "DO_NOT_TRACK"),
    *("POSTGRES_USER", "POSTGRES_DB", "POSTGRES_PASSWORD_FILE"),
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL_S3"),
    *("NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES"),
}
OWN = {"LOUPE_MODEL", "LOUPE_PLACE"}  # which infra/ itself puts into a command


def prefect_names():
    from prefect.settings import Settings
    from prefect.settings.legacy import _get_settings_fields
    from prefect_kubernetes.settings import KubernetesSettings

    names = set(_get_settings_fields(Settings))
    pending = [("PREFECT_INTEGRATIONS_KUBERNETES", KubernetesSettings)]
    while pending:
        prefix, model = pending.pop()
        for name, field in model.model_fields.items():
            names.add(f"{prefix}_{name}".upper())
            if hasattr(field.annotation, "model_fields"):
                pending.append((f"{prefix}_{name}", field.annotation))
    return names


def mlflow_names():
    from mlflow import environment_variables
    from mlflow.cli import cli

    names = {name for name in dir(environment_variables) if name.startswith("MLFLOW_")}
    return names | {option.envvar for option in cli.commands["server"].params if option.envvar}


def loupe_names():
    text = "".join(p.read_text() for p in [*Path("components").rglob("*.py"), Path("prefect.yaml")])
    return set(re.findall(r'["$](LOUPE_[A-Z_]+)\b', text))


def test_every_variable_is_read_by_somebody():
    found = variables()
    assert {"LOUPE_STORE", "LOUPE_TOKEN", "PREFECT_API_URL", "MLFLOW_SERVER_ALLOWED_HOSTS"} <= found.keys()
    known = OTHERS | OWN | loupe_names() | prefect_names() | mlflow_names()
    unknown = {name: places for name, places in found.items() if name not in known and not name.startswith("GF_")}
    assert unknown == {}


def test_what_infra_puts_into_commands_it_also_sets():
    text = "".join(p.read_text() for p in [*INFRA.rglob("*.yaml"), *UNITS, SYSTEMD / "environment.example"])
    for name in OWN:
        assert re.search(rf"\$[{{(]{name}[:)}}]", text), name


def test_secrets_of_the_page_are_variables_that_somebody_reads():
    page = (PROJECT / "docs/deploying.md").read_text()
    named = set(re.findall(r"--from-literal=([A-Z_]+)=", page))
    known = OTHERS | loupe_names() | prefect_names() | mlflow_names()
    assert {"LOUPE_TOKEN", "AWS_SECRET_ACCESS_KEY", "MLFLOW_BACKEND_STORE_URI"} <= named <= known


# Commands.


@pytest.fixture(scope="module")
def started():
    """What is started, by program: pairs of the place and the words."""
    found = {}
    for place, words in commands():
        if not words[0].startswith("-"):  # Prometheus, whose program is its image's entry point
            found.setdefault(words[0], []).append((place, words))
    return found


def test_every_command_is_looked_at_here(started):
    """`server` is SeaweedFS; its program is its image's entry point."""
    assert set(started) == {"loupe", "prefect", "mlflow", "evidently", "python", "server"}


def test_commands_of_loupe_exist_with_their_options(started):
    from typer.main import get_command

    from components.cli import app

    assert {words[1] for _, words in started["loupe"]} == {"serve", "watch"}
    for place, words in started["loupe"]:
        command = get_command(app).commands[words[1]]
        options = {name for parameter in command.params for name in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options, place


def test_commands_of_prefect_exist_with_their_options(started):
    """Prefect itself takes them apart, without running one; it raises where an option is none of its own."""
    from prefect.cli._app import _app as program

    asked = set()
    for _, words in started["prefect"]:
        command, _, _ = program.parse_args(
            [word for word in words[1:] if word != "--no-prompt"], exit_on_error=False, print_error=False
        )
        asked.add(f"{command.__module__}.{command.__name__}")
    modules = ("worker.start", "server.start", "work_pool.create", "deploy._commands.deploy")
    assert {name.removeprefix("prefect.cli.") for name in asked} == set(modules)


def test_commands_of_mlflow_and_evidently_are_those_that_the_code_uses(started):
    from mlflow.cli import cli

    from components.monitoring.evidently import dashboard_command

    ((_, given),) = started["mlflow"]
    options = {name for parameter in cli.commands["server"].params for name in parameter.opts}
    assert {word for word in given if word.startswith("--")} <= options
    ((_, given),) = started["evidently"]
    place = Path("/project/monitoring/workspace")
    assert given[1:] == dashboard_command(Path(sys.executable), place, "0.0.0.0", 8001)[1:]


def test_scripts_that_containers_run_are_mounted(started):
    ((_, given),) = started["python"]
    mounted = {c["target"] for c in compose()["services"]["bucket"]["configs"]}
    assert given[1] in mounted


# Ports, paths, modules.


def test_ports_are_those_of_the_programs():
    from prefect.settings import get_current_settings

    from components.monitoring.settings import MonitorSettings
    from components.service.settings import ServiceSettings

    assert ServiceSettings().port == PORTS["service"]
    assert MonitorSettings().workspace == "monitoring/workspace"
    expected = {"scorer": PORTS["service"], "prefect": PORTS["prefect"], "mlflow": PORTS["mlflow"], "evidently": 8001}
    for name, port in expected.items():
        (published,) = compose()["services"][name]["ports"]
        assert published == f"127.0.0.1:{port}:{port}", name
    health = get_current_settings().worker.webserver.port
    expected = {"scorer": {PORTS["service"]}, "worker": {health}, "mlflow": {PORTS["mlflow"]}, "evidently": {8001}}
    for name, pod in pods(built("gpu")):
        given = {port["containerPort"] for c in pod["spec"]["containers"] for port in c.get("ports", [])}
        assert given == expected.get(name, set()), name
    exposed = {port for path in INFRA.rglob("*.Dockerfile") for port in re.findall(r"EXPOSE (\d+)", path.read_text())}
    assert exposed == {"8000", "8080", "5001", "4200", "8001"}


def test_addresses_between_services_lead_to_services_and_their_ports():
    services = compose()["services"]
    text = yaml.safe_dump(services) + (INFRA / "prometheus/prometheus.yml").read_text()
    text += (INFRA / "grafana/provisioning/datasources/prometheus.yaml").read_text()
    ports = {"prefect": 4200, "mlflow": 5001, "s3": 8333, "scorer": 8000, "prometheus": 9090}
    for host, port in set(re.findall(r"\b([a-z][\w-]*[a-z0-9]):(\d{4})\b", text)) - {("localhost", "5001")}:
        assert host in services, host
        assert ports[host] == int(port), host
    text = "".join(yaml.safe_dump(m) for m in built("gpu"))
    known = {m["metadata"]["name"] for m in built("gpu") if m["kind"] == "Service"} | {"s3", "prefect-server"}
    named = set(re.findall(r"\b([a-z0-9-]+)\.loupe\.svc", text))
    assert {"mlflow", "s3", "prefect-server"} <= named <= known


def test_paths_of_the_service_that_are_probed_are_routes():
    text = (PROJECT / "components/service/routes.py").read_text()
    for place in (*INFRA.rglob("*.Dockerfile"), KUBERNETES / "base/scorer.yaml"):
        for path in re.findall(r"(?:127.0.0.1:8000|path: )(/\w+)", place.read_text()):
            assert f'@app.get("{path}"' in text, (place, path)


def test_modules_that_are_named_can_be_imported():
    text = "".join(path.read_text() for path in INFRA.rglob("*") if path.suffix in (".Dockerfile", ".yaml", ".service"))
    modules = set(re.findall(r"\b((?:prefect|components|flows|mlflow)(?:\.\w+){2,})\b(?!:)", text))
    modules = {name for name in modules if not name.endswith((".yaml", ".svc", ".py"))}
    assert "prefect.server.concurrency.lease_storage.filesystem" in modules
    for name in modules:
        importlib.import_module(name)


def test_units_start_programs_that_are_installed():
    for unit in UNITS:
        for line in told(unit, "ExecStart"):
            assert (BIN / Path(line.split()[0]).name).exists(), unit.name


def test_a_missing_tool_skips_a_test_by_the_word_that_fails_it_in_ci():
    with pytest.raises(pytest.skip.Exception, match=r"^needs no-such-program"):
        tool("no-such-program")


def test_who_starts_prefects_server_has_the_pages_that_ask_nobody():
    files = [path for path in INFRA.rglob("*") if path.suffix in {".py", ".yaml", ".service", ".Dockerfile"}]
    asked = [path for path in files if "PREFECT_SERVER_ANALYTICS_ENABLED" in path.read_text()]
    assert len(asked) >= 4
    assert [path.name for path in asked if "PREFECT_SERVER_UI_V2_ENABLED" not in path.read_text()] == []
