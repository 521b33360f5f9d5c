"""The manifests of the service, and what they share with the service itself and with the chart."""

import copy
import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import promql_parser
import pytest
import yaml
from composition import ROOT, Services

from cxr_assets.definitions import definitions
from cxr_serving.http.app import create_app
from cxr_serving.http.metrics import Metrics
from cxr_serving.http.settings import Settings

VERSION = "1.33"  # the oldest that is supported
K8S = ROOT / "deploy" / "k8s"


@pytest.fixture(scope="module")
def manifests() -> dict[str, dict[str, Any]]:
    """By kind."""
    found = [*yaml.safe_load_all((K8S / "serving.yaml").read_text())]
    return {manifest["kind"]: manifest for manifest in found}


@pytest.fixture(scope="module")
def pod(manifests: dict[str, dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = manifests["Deployment"]["spec"]["template"]["spec"]
    return found


@pytest.fixture(scope="module")
def container(pod: dict[str, Any]) -> dict[str, Any]:
    [found] = pod["containers"]
    assert isinstance(found, dict)
    return found


@pytest.fixture(scope="module")
def chart() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((K8S / "dagster.yaml").read_text())
    return found


def launcher(chart: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = chart["runLauncher"]["config"]["k8sRunLauncher"]
    return found


@pytest.mark.parametrize(
    "kind",
    ["Deployment", "Service", "PodDisruptionBudget", "HorizontalPodAutoscaler", "NetworkPolicy"],
)
def test_kubernetes_accepts_the_manifest(kind: str, manifests: dict[str, dict[str, Any]]) -> None:
    kubernetes_validate.validate(manifests[kind], VERSION, strict=True)


def test_a_wrong_field_is_found(manifests: dict[str, dict[str, Any]]) -> None:
    wrong = copy.deepcopy(manifests["Deployment"])
    wrong["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="readinesProbe"):
        kubernetes_validate.validate(wrong, VERSION, strict=True)


def test_all_choose_the_pods_of_the_deployment(manifests: dict[str, dict[str, Any]]) -> None:
    deployment = manifests["Deployment"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    assert manifests["Service"]["spec"]["selector"] == labels
    assert manifests["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert manifests["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == labels
    scaler = manifests["HorizontalPodAutoscaler"]["spec"]
    assert scaler["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    # Otherwise no node could be drained.
    budget = manifests["PodDisruptionBudget"]["spec"]["minAvailable"]
    assert budget < scaler["minReplicas"]


def test_probes_ask_paths_and_ports_that_exist(container: dict[str, Any]) -> None:
    paths = create_app(Settings()).openapi()["paths"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["path"] in paths
        assert container[probe]["httpGet"]["port"] in ports
    assert container["readinessProbe"]["httpGet"]["path"] == "/ready"
    assert container["livenessProbe"]["httpGet"]["path"] == "/health"
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    assert ports["http"] == int(environment["CXR_PORT"])


def test_settings_are_those_of_the_service(
    container: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = {f"CXR_{name}".upper() for name in Settings.model_fields}
    for entry in container["env"]:
        assert entry["name"] in fields
        monkeypatch.setenv(entry["name"], entry["value"])
    assert Settings().follow == "released"


def test_it_is_not_killed_while_it_drains(pod: dict[str, Any]) -> None:
    settings = Settings()
    assert pod["terminationGracePeriodSeconds"] > settings.notice_seconds + settings.drain_seconds


def test_it_has_no_rights_and_writes_nothing(
    pod: dict[str, Any], container: dict[str, Any]
) -> None:
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert f"--uid {pod['securityContext']['runAsUser']} " in (ROOT / "Dockerfile").read_text()


def test_it_sees_models_releases_and_metrics_alone(container: dict[str, Any]) -> None:
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    assert mounts.keys() == {"/data/models", "/data/releases", "/data/metrics", "/keys", "/tmp"}
    for path, mount in mounts.items():
        assert mount.get("readOnly", False) is (path != "/tmp")
        assert path.partition("/data/")[2] == mount.get("subPath", "")


def test_it_scales_by_a_metric_that_the_service_exposes(
    manifests: dict[str, dict[str, Any]],
) -> None:
    [rule] = yaml.safe_load((K8S / "adapter.yaml").read_text())["rules"]["custom"]
    [metric] = manifests["HorizontalPodAutoscaler"]["spec"]["metrics"]
    assert metric["pods"]["metric"]["name"] == rule["name"]["as"]
    exposed = Metrics().render().decode()
    query = rule["metricsQuery"].replace("<<.GroupBy>>", "pod").replace("<<.LabelMatchers>>", "")
    promql_parser.parse(query)
    promql_parser.parse(rule["seriesQuery"])
    for name in re.findall(r"cxr_\w+", query + rule["seriesQuery"]):
        assert re.search(rf"^{name}(\{{| )", exposed, re.MULTILINE), name


def test_the_chart_runs_what_compose_runs(chart: dict[str, Any], services: Services) -> None:
    [deployment] = chart["dagster-user-deployments"]["deployments"]
    images = [deployment, chart["dagsterWebserver"], chart["dagsterDaemon"]]
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version
    for image in images:
        assert image["image"]["repository"] == f"{services['code-location']['image']}-k8s"
        assert image["image"]["tag"] == version[1]
    serving = (K8S / "serving.yaml").read_text()
    assert f"image: {services['serving']['image']}:{version[1]}" in serving
    module = deployment["dagsterApiGrpcArgs"][1]
    assert f"--module-name={module}" in services["code-location"]["command"]
    assert (
        chart["postgresql"]["postgresqlUsername"]
        == services["postgres"]["environment"]["POSTGRES_USER"]
    )


def test_the_chart_sets_what_deploy_dagster_yaml_sets(chart: dict[str, Any]) -> None:
    ours = yaml.safe_load((ROOT / "deploy" / "dagster.yaml").read_text())
    daemon = chart["dagsterDaemon"]
    monitoring = daemon["runMonitoring"]
    assert monitoring["maxRuntimeSeconds"] == ours["run_monitoring"]["max_runtime_seconds"]
    assert monitoring["startTimeoutSeconds"] >= ours["run_monitoring"]["start_timeout_seconds"]
    retries = daemon["runRetries"]
    assert ours["run_retries"] == {
        "enabled": retries["enabled"],
        "max_retries": retries["maxRetries"],
        "retry_on_asset_or_op_failure": retries["retryOnAssetOrOpFailure"],
    }
    coordinator = daemon["runCoordinator"]["config"]["queuedRunCoordinator"]
    assert coordinator["maxConcurrentRuns"] == ours["concurrency"]["runs"]["max_concurrent_runs"]
    days = chart["retention"]["schedule"]["purgeAfterDays"]
    assert days == ours["retention"]["schedule"]["purge_after_days"]
    pinned = (ROOT / "constraints.txt").read_text()
    named = re.search(r"--version (\S+) ", (K8S / "dagster.yaml").read_text())
    assert named
    assert f"\ndagster=={named[1]}\n" in pinned
    assert Path(
        chart["computeLogManager"]["config"]["customComputeLogManager"]["config"]["base_dir"]
    ).parts[:2] == ("/", "data")


def test_kubernetes_accepts_what_the_chart_passes_on(chart: dict[str, Any]) -> None:
    """The chart's own schema checks the rest, where Helm is: see the job `kubernetes` of CI."""
    [deployment] = chart["dagster-user-deployments"]["deployments"]
    for part in (deployment, chart["dagsterWebserver"], chart["dagsterDaemon"]):
        container = {
            "name": "dagster",
            "image": f"{part['image']['repository']}:{part['image']['tag']}",
            "imagePullPolicy": part["image"]["pullPolicy"],
            "env": part.get("env", []),
            "envFrom": [{"secretRef": secret} for secret in part.get("envSecrets", [])],
            "volumeMounts": part.get("volumeMounts", []),
            "securityContext": part["securityContext"],
            "resources": part["resources"],
        }
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "dagster"},
            "spec": {
                "containers": [container],
                "securityContext": part["podSecurityContext"],
                "volumes": part.get("volumes", []),
            },
        }
        kubernetes_validate.validate(pod, VERSION, strict=True)


def test_kubernetes_accepts_the_pods_of_runs_and_steps(chart: dict[str, Any]) -> None:
    """What dagster-k8s makes of it is in tests/defs/test_pods.py, where that is installed."""
    [deployment] = chart["dagster-user-deployments"]["deployments"]
    given = {entry["name"]: entry["value"] for entry in deployment["env"]}
    pods = yaml.safe_load(given["CXR_STEP_PODS"])
    each = [
        pods["step_k8s_config"],
        *pods["per_step_k8s_config"].values(),
        {"pod_spec_config": launcher(chart)["runK8sConfig"]["podSpecConfig"]},
    ]
    for config in each:
        container = {"name": "dagster", **config.get("container_config", {})}
        spec = {"containers": [container], **config["pod_spec_config"]}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "step"}, "spec": spec}
        kubernetes_validate.validate(pod, VERSION, strict=True)


def test_pods_are_set_for_steps_that_exist(chart: dict[str, Any]) -> None:
    [deployment] = chart["dagster-user-deployments"]["deployments"]
    given = {entry["name"]: entry["value"] for entry in deployment["env"]}
    named = yaml.safe_load(given["CXR_STEP_PODS"])["per_step_k8s_config"].keys()
    job = definitions.resolve_job_def("retrain")
    assert named == {op.name for op in job.all_node_defs if op.name.endswith("_fit")}


def test_runs_have_the_rights_of_the_code_location(chart: dict[str, Any]) -> None:
    """The chart does not pass these on from there."""
    [deployment] = chart["dagster-user-deployments"]["deployments"]
    ours = launcher(chart)
    assert ours["securityContext"] == deployment["securityContext"]
    spec = ours["runK8sConfig"]["podSpecConfig"]
    assert spec["securityContext"] == deployment["podSecurityContext"]
