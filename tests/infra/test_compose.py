"""compose.yaml as Compose itself reads it, and what it must not say."""

import json
import re
import stat
import subprocess

import pytest
import yaml

from infra.compose.keys import IDENTITIES, drawn, write
from tests.infra.reading import INFRA, PROJECT, call, compose

FOLDER = INFRA / "compose"
GIVEN = {"LOUPE_PROJECT": "/srv/loupe", "LOUPE_MODEL": "housings"}


def resolved(*files):
    words = [word for file in files for word in ("-f", FOLDER / file)]
    text = call("docker-compose", *words, "config", "--format", "json", env=GIVEN | {"PATH": "/usr/bin:/bin"})
    return json.loads(text)


@pytest.mark.parametrize("file", ["compose.yaml", "gpu.yaml"])
def test_it_fits_the_specification(file):
    call("check-jsonschema", "--builtin-schema", "vendor.compose-spec", FOLDER / file)


def test_compose_reads_it_and_asks_for_a_gpu_where_it_is_told():
    assert "deploy" not in resolved("compose.yaml")["services"]["worker"]
    worker = resolved("compose.yaml", "gpu.yaml")["services"]["worker"]
    assert worker["image"].endswith("-cuda")
    assert worker["build"]["target"] == "cuda"
    (device,) = worker["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]


def test_without_project_or_model_it_says_what_is_missing():
    text = (FOLDER / "compose.yaml").read_text()
    asked = dict(re.findall(r"\$\{(\w+):\?([^}]+)\}", text))
    assert asked.keys() == GIVEN.keys()


def test_what_is_mounted_built_and_configured_exists():
    known = resolved("compose.yaml")
    for config in known["configs"].values():
        assert (FOLDER / config["file"]).exists(), config
    for name, service in known["services"].items():
        if "build" in service:
            assert (PROJECT / service["build"]["dockerfile"]).exists(), name
            text = (PROJECT / service["build"]["dockerfile"]).read_text()
            assert f"AS {service['build'].get('target', 'build')}\n" in text, name
        for mount in service.get("volumes", []):
            ours = mount["type"] == "volume" or mount["source"].startswith("/srv/loupe")
            assert ours or (FOLDER / mount["source"]).exists(), (name, mount)


def test_every_server_has_a_health_check_of_its_own_or_of_its_image():
    once = {name for name, s in compose()["services"].items() if s.get("healthcheck", {}).get("disable")}
    assert once == {"deploy", "bucket"}
    for name, service in compose()["services"].items():
        if "healthcheck" not in service:
            dockerfile, target = service["build"]["dockerfile"], service["build"].get("target")
            text = (PROJECT / dockerfile).read_text()
            last = text.split(f" AS {target}\n")[-1].split("\nFROM ")[0] if target else text
            assert "HEALTHCHECK" in last or "HEALTHCHECK" in text.split(" AS ready\n")[-1].split("\nFROM ")[0], name


def test_ports_are_open_on_loopback_alone_and_databases_nowhere():
    for name, service in resolved("compose.yaml")["services"].items():
        assert all(port["host_ip"] == "127.0.0.1" for port in service.get("ports", [])), name
        if "postgres" in service["image"]:
            assert "ports" not in service
            assert set(service["networks"]) == {"back"}
    assert resolved("compose.yaml")["networks"]["back"]["internal"]


def test_our_containers_are_hardened():
    for name, service in resolved("compose.yaml")["services"].items():
        if service["image"].startswith("loupe-"):
            assert service["read_only"], name
            assert service["cap_drop"] == ["ALL"], name
            assert service["security_opt"] == ["no-new-privileges:true"], name


def test_no_secret_is_committed_and_each_that_is_asked_for_is_drawn():
    known = resolved("compose.yaml")
    files = drawn()
    assert {secret["file"].rpartition("/")[2] for secret in known["secrets"].values()} == set(files)
    for name, service in known["services"].items():
        told = service.get("environment", {})
        assert not [k for k in told if re.search("PASSWORD$|SECRET|TOKEN|KEY", k)], name
    ignored = subprocess.run(["git", "check-ignore", "-q", FOLDER / "secrets/loupe_token"], cwd=PROJECT)
    assert ignored.returncode == 0


def test_keys_differ_each_time_and_agree_with_each_other():
    one, two = drawn(), drawn()
    assert not set(one.values()) & set(two.values())
    for part in ("prefect", "mlflow"):
        assert f":{one[f'{part}_db_password']}@{part}-db:5432/" in one[f"{part}_db_url"]
    for identity in json.loads(one["s3.json"])["identities"]:
        name = identity["name"]
        (pair,) = identity["credentials"]
        assert pair == {"accessKey": one[f"{name}_key_id"], "secretKey": one[f"{name}_key_secret"]}
        assert identity["actions"] == IDENTITIES[name]
    assert min(len(value) for name, value in one.items() if not name.endswith("_id")) >= 32


def test_keys_are_written_once(tmp_path):
    folder = tmp_path / "secrets"
    write(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    before = {path.name: path.read_text() for path in folder.iterdir()}
    assert before.keys() == drawn().keys()
    with pytest.raises(FileExistsError):
        write(folder)
    assert before == {path.name: path.read_text() for path in folder.iterdir()}


def test_users_of_databases_are_those_of_the_addresses():
    services, files = compose()["services"], drawn()
    for part in ("prefect", "mlflow"):
        told = services[f"{part}-db"]["environment"]
        assert f"//{told['POSTGRES_USER']}:" in files[f"{part}_db_url"]
        assert files[f"{part}_db_url"].endswith(f"/{told['POSTGRES_DB']}")


def test_the_entry_point_makes_variables_of_secrets(tmp_path):
    contents = {"LOUPE_TOKEN": "a b$c\n", "AWS_ACCESS_KEY_ID": "KEY", "s3.json": "{}", "grafana_password": "x"}
    for name, content in contents.items():
        (tmp_path / name).write_text(content)
    script = INFRA / "docker/with-secrets.sh"
    done = subprocess.run(
        [script, "env"], env={"SECRETS_FOLDER": str(tmp_path), "PATH": "/usr/bin:/bin"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    told = set(done.stdout.splitlines())
    assert {"LOUPE_TOKEN=a b$c", "AWS_ACCESS_KEY_ID=KEY"} <= told
    assert not [line for line in told if "json" in line or "grafana" in line]


def test_the_entry_point_ends_as_its_command_does_and_needs_no_secrets(tmp_path):
    for folder, command, status in ((tmp_path / "none", "exit 3", 3), (tmp_path, "exit 0", 0)):
        done = subprocess.run(
            [INFRA / "docker/with-secrets.sh", "sh", "-c", command],
            env={"SECRETS_FOLDER": str(folder), "PATH": "/usr/bin:/bin"},
        )
        assert done.returncode == status


def test_grafana_is_provisioned_where_the_files_are_mounted():
    mounts = {m.split(":")[1]: m.split(":")[0] for m in compose()["services"]["grafana"]["volumes"]}
    provider = yaml.safe_load((INFRA / "grafana/provisioning/dashboards/loupe.yaml").read_text())
    assert mounts[provider["providers"][0]["options"]["path"]] == "../grafana/dashboards"
    assert mounts["/etc/grafana/provisioning"] == "../grafana/provisioning"
