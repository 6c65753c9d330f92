"""The manifests: schemas, what every pod must have, and that each name in one is that of another."""

import json
import re
import uuid
from pathlib import Path

import pytest
import yaml

from tests.infra.reading import INFRA, KUBERNETES, OVERLAYS, PROJECT, built, call, compose, pods, template

SERVERS = {"scorer", "worker", "mlflow", "evidently"}


@pytest.fixture(scope="module", params=OVERLAYS)
def manifests(request):
    return built(request.param)


def of_kind(manifests, kind):
    return {m["metadata"]["name"]: m for m in manifests if m["kind"] == kind}


def test_every_manifest_fits_its_schema(manifests, tmp_path):
    path = tmp_path / "all.yaml"
    path.write_text(yaml.safe_dump_all(manifests))
    call("kubernetes-validate", "--strict", "--quiet", path)


def test_yaml_is_written_in_one_way():
    call("yamllint", "--strict", "-c", PROJECT / ".yamllint", INFRA, PROJECT / "prefect.yaml")


def test_no_pod_can_be_root_write_to_its_root_or_take_the_machine(manifests):
    found = dict(pods(manifests))
    assert SERVERS | {"deploy"} == set(found)
    for name, pod in found.items():
        check_pod(name, pod["spec"])


def check_pod(name, spec):
    context = spec["securityContext"]
    assert context["runAsNonRoot"], name
    assert context["runAsUser"] >= 1000, name
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}, name
    for container in spec["containers"]:
        own = container["securityContext"]
        assert own["readOnlyRootFilesystem"], name
        assert not own["allowPrivilegeEscalation"], name
        assert own["capabilities"] == {"drop": ["ALL"]}, name
        assert {"cpu", "memory"} <= container["resources"]["limits"].keys() & container["resources"]["requests"].keys()
    sized = [volume["emptyDir"].get("sizeLimit") for volume in spec.get("volumes", []) if "emptyDir" in volume]
    assert all(sized), name


def test_servers_are_asked_whether_they_live(manifests):
    for name, pod in pods(manifests):
        if name in SERVERS:
            (container,) = pod["spec"]["containers"]
            ports = {port["name"] for port in container["ports"]}
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                assert container[probe]["httpGet"]["port"] in ports, (name, probe)


def test_scaling_and_disruption_name_what_is_there(manifests):
    labels = {name: pod["metadata"]["labels"] for name, pod in pods(manifests)}
    for name in ("scorer", "worker"):
        target = of_kind(manifests, "HorizontalPodAutoscaler")[name]["spec"]
        assert target["scaleTargetRef"]["name"] in of_kind(manifests, target["scaleTargetRef"]["kind"])
        assert target["minReplicas"] < target["maxReplicas"]
        chosen = of_kind(manifests, "PodDisruptionBudget")[name]["spec"]["selector"]["matchLabels"]
        assert chosen.items() <= labels[name].items()
        owner = of_kind(manifests, target["scaleTargetRef"]["kind"])[name]["spec"]
        assert "replicas" not in owner, "it would fight with the autoscaler at each apply"
    for name, service in of_kind(manifests, "Service").items():
        assert any(service["spec"]["selector"].items() <= known.items() for known in labels.values()), name


def test_network_policies_leave_nobody_out_and_choose_pods_that_exist(manifests):
    run = template(KUBERNETES / "base")["job_configuration"]["job_manifest"]["spec"]["template"]
    labels = {name: pod["metadata"]["labels"] for name, pod in [*pods(manifests), ("run", run)]}
    policies = of_kind(manifests, "NetworkPolicy")
    everyone = policies["nothing-unless-named"]["spec"]
    assert everyone["policyTypes"] == ["Ingress", "Egress"]
    assert not {"ingress", "egress"} & everyone.keys()
    for known in labels.values():
        assert everyone["podSelector"]["matchLabels"].items() <= known.items()
    for policy in policies.values():
        assert any(chooses(policy["spec"]["podSelector"], known) for known in labels.values()), policy


def chooses(selector, labels):
    fits = all(labels.get(e["key"]) in e["values"] for e in selector.get("matchExpressions", []))
    return fits and selector.get("matchLabels", {}).items() <= labels.items()


def test_what_a_pod_mounts_and_reads_exists_or_is_a_secret_made_by_hand(manifests):
    there = {m["metadata"]["name"] for m in manifests}
    text = yaml.safe_dump_all(manifests)
    assert "kind: Secret" not in text
    named = set(re.findall(r"(?:configMapRef|configMap|persistentVolumeClaim):\n\s+(?:name|claimName): (\S+)", text))
    assert len(named) >= 4
    assert named <= there
    page = Path("docs/deploying.md").read_text()
    for secret in set(re.findall(r"(?:secretRef|secretKeyRef):\n(?:\s+key: \S+\n)?\s+name: (\S+)", text)):
        assert f"create secret generic {secret} " in page, secret


def test_images_have_one_version_everywhere(manifests):
    text = yaml.safe_dump_all(manifests) + json.dumps(compose()) + (KUBERNETES / "base/work-pool.json").read_text()
    text += "".join(p.read_text() for p in INFRA.rglob("*") if p.suffix in (".Dockerfile", ".yaml"))
    ours = set(re.findall(r"\bloupe-(?:scorer|trainer|mlflow|evidently|prefect):([\w.]+)", text))
    version = re.search(r'^version = "(.*)"', Path("pyproject.toml").read_text(), re.MULTILINE)
    assert ours == {version[1]}
    images = re.findall(r"image: (\S+)", yaml.safe_dump_all(manifests) + yaml.safe_dump(compose()))
    assert all(":" in image and not image.endswith(":latest") for image in images)


# The template of the work pool.


def job_of(folder):
    """The Job that a worker makes for a run, from the template of *folder* with its defaults."""
    from prefect.client.schemas.objects import FlowRun
    from prefect.utilities.templating import apply_values
    from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration, KubernetesWorkerVariables

    pool = template(folder)
    variables = pool["variables"]["properties"]
    assert KubernetesWorkerVariables.model_fields.keys() - {"cluster_config"} <= variables.keys()
    defaults = {key: known["default"] for key, known in variables.items() if known.get("default") is not None}
    configuration = KubernetesWorkerJobConfiguration(**apply_values(pool["job_configuration"], defaults))
    configuration.prepare_for_flow_run(FlowRun(name="brisk-otter", flow_id=uuid.uuid4()))
    return configuration.job_manifest


@pytest.mark.parametrize(("folder", "gpus"), [("base", 0), ("overlays/gpu", 1)])
def test_a_run_becomes_a_job_that_fits_the_schema(folder, gpus, tmp_path):
    job = job_of(KUBERNETES / folder)
    pod = job["spec"]["template"]
    assert int(pod["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"]) == gpus
    assert pod["metadata"]["labels"]["app.kubernetes.io/name"] == "run", "no network policy would choose it"
    check_pod(folder, pod["spec"])
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(job))
    call("kubernetes-validate", "--strict", "--quiet", path)


def test_every_blank_of_the_template_is_a_variable_and_every_variable_fills_one():
    pool = template(KUBERNETES / "base")
    blanks = set(re.findall(r"{{ (\w+) }}", json.dumps(pool["job_configuration"])))
    assert blanks == set(pool["variables"]["properties"])


def test_the_template_for_gpus_differs_in_defaults_alone():
    base, gpu = template(KUBERNETES / "base"), template(KUBERNETES / "overlays/gpu")
    assert base["job_configuration"] == gpu["job_configuration"]
    one, two = base["variables"]["properties"], gpu["variables"]["properties"]
    changed = {key for key in one if one[key] != two[key]}
    assert changed == {"gpu", "image", "memory_limit"}
    assert two["image"]["default"].endswith("-cuda")


def test_the_template_names_volumes_and_accounts_of_the_base(manifests):
    there = {m["metadata"]["name"] for m in manifests}
    variables = template(KUBERNETES / "base")["variables"]["properties"]
    assert variables["project_claim"]["default"] in of_kind(manifests, "PersistentVolumeClaim")
    assert variables["service_account_name"]["default"] in of_kind(manifests, "ServiceAccount")
    assert variables["namespace"]["default"] in of_kind(manifests, "Namespace")
    assert "loupe-environment" in there


def test_params_of_the_scorer_load():
    from components.pipeline.params import load_params

    params = load_params(KUBERNETES / "base/params.yaml")
    assert params.registry.uri == "http://mlflow.loupe.svc:5001"
    assert params.registry.artefacts == "s3://loupe/artefacts"


# The values of charts.


def test_the_rules_of_the_chart_are_those_of_prometheus():
    values = yaml.safe_load((KUBERNETES / "helm/prometheus.yaml").read_text())
    rules = yaml.safe_load((INFRA / "prometheus/rules.yml").read_text())
    assert values["serverFiles"]["alerting_rules.yml"] == rules


def test_values_hold_no_password_and_no_database_of_the_chart():
    for path in sorted((KUBERNETES / "helm").glob("*.yaml")):
        values = path.read_text()
        assert not re.search(r"password: \S", values.replace("passwordKey", "")), path
    values = yaml.safe_load((KUBERNETES / "helm/prefect-server.yaml").read_text())
    assert values["postgresql"] == {"enabled": False}
    assert values["secret"] == {"create": False, "name": "loupe-prefect-db"}
