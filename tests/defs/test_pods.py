"""The job ``retrain`` by the values of Helm: the run and its steps are processes of their own.

What a pod would run is really run, by dagster-k8s' own launcher, executor and client.
"""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from kubernetes_stand_in import NAMESPACE, Kubernetes

pytest.importorskip("dagster_k8s", reason="dagster-k8s is not installed: make .venv/k8s")

from cxr_assets.defs import pods
from cxr_assets.settings import Settings, SettingsError

ROOT = Path(__file__).parents[2]
VALUES: dict[str, Any] = yaml.safe_load((ROOT / "deploy/k8s/dagster.yaml").read_text())
LAUNCHER = VALUES["runLauncher"]["config"]["k8sRunLauncher"]
[LOCATION] = VALUES["dagster-user-deployments"]["deployments"]
ENVIRONMENT = {entry["name"]: entry["value"] for entry in LOCATION["env"]}
IMAGE = "{repository}:{tag}".format(**LOCATION["image"])
FITS = {"convnext_model.convnext_model_fit", "dinov2_probe.dinov2_probe_fit"}
MINUTES = 15

pytestmark = pytest.mark.timeout((MINUTES + 5) * 60)


def instance_config(home: Path, kubeconfig: Path) -> dict[str, Any]:
    """What the chart adds to dagster.yaml; the cluster is not around the process, but at a URL."""
    return {
        "run_coordinator": {
            "module": "dagster._core.run_coordinator",
            "class": "DefaultRunCoordinator",
        },
        "run_launcher": {
            "module": "dagster_k8s",
            "class": "K8sRunLauncher",
            "config": {
                "load_incluster_config": False,
                "kubeconfig_file": str(kubeconfig),
                "job_namespace": NAMESPACE,
                "image_pull_policy": LAUNCHER["imagePullPolicy"],
                "service_account_name": "dagster",
                "dagster_home": str(home),
                "instance_config_map": "dagster-instance",
                "postgres_password_secret": VALUES["global"]["postgresqlSecretName"],
                "security_context": LAUNCHER["securityContext"],
                "run_k8s_config": {"pod_spec_config": LAUNCHER["runK8sConfig"]["podSpecConfig"]},
            },
        },
    }


def container_context(here: dict[str, str]) -> dict[str, Any]:
    """What the chart passes on from the code location to its runs; ``here`` is not as in a pod."""
    environment = {**ENVIRONMENT, **here}
    return {
        "k8s": {
            "image_pull_policy": LOCATION["image"]["pullPolicy"],
            "env_config_maps": ["dagster-dagster-user-deployments-cxr-user-env"],
            "env_secrets": [secret["name"] for secret in LOCATION["envSecrets"]],
            "volume_mounts": LOCATION["volumeMounts"],
            "volumes": LOCATION["volumes"],
            "resources": LOCATION["resources"],
            "namespace": NAMESPACE,
            "service_account_name": "dagster-dagster-user-deployments-user-deployments",
            "env": [{"name": name, "value": value} for name, value in environment.items()],
            "run_k8s_config": {"pod_spec_config": {"automount_service_account_token": True}},
        }
    }


@pytest.fixture(scope="module")
def workplace(new_workplace: Callable[[], Any]) -> Any:
    return new_workplace()


@pytest.fixture(scope="module")
def jobs(workplace: Any) -> Iterator[dict[str, Any]]:
    """What Kubernetes got, by step, once the run has ended; the run itself is the step ``""``."""
    with Kubernetes(workplace.environment) as kubernetes:
        kubeconfig = workplace.root / "kubeconfig"
        kubeconfig.write_text(kubernetes.kubeconfig)
        config = instance_config(workplace.home, kubeconfig)
        (workplace.home / "dagster.yaml").write_text(yaml.safe_dump(config))
        # The volume is not mounted here, and MLflow is a file.
        here = {"CXR_DATA_ROOT": str(workplace.root), "CXR_MLFLOW_URI": ""}
        launched = workplace.command(
            *("dagster", "job", "launch", "-m", "cxr_assets.definitions", "-j", "retrain"),
            DAGSTER_CONTAINER_CONTEXT=json.dumps(container_context(here)),
            DAGSTER_CURRENT_IMAGE=IMAGE,
            CXR_STEP_PODS=ENVIRONMENT["CXR_STEP_PODS"],
        )
        assert launched.returncode == 0, launched.stderr[-3000:]
        until = time.monotonic() + MINUTES * 60
        while not workplace.runs()[0].is_finished:
            assert time.monotonic() < until, f"{list(kubernetes.jobs)} after {MINUTES} minutes"
            time.sleep(1)
        yield {
            job["metadata"]["labels"].get("dagster/op", ""): job["spec"]["template"]["spec"]
            for job in kubernetes.jobs.values()
        }


def test_the_run_succeeds_and_mlflow_has_it_as_of_one_process(
    workplace: Any, jobs: dict[str, Any]
) -> None:
    [run] = workplace.runs()
    assert run.status is dg.DagsterRunStatus.SUCCESS
    parent = workplace.mlflow_parent(run.run_id)
    assert parent.info.status == "FINISHED"
    assert "test_macro_f1" in parent.data.metrics
    trainings = {
        each.info.run_name: each.info.status
        for each in workplace.mlflow_runs()
        if each.data.tags.get("mlflow.parentRunId") == parent.info.run_id
    }
    assert trainings == {"convnext_model": "FINISHED", "dinov2_probe": "FINISHED"}
    assert len(workplace.mlflow_runs()) == 3


def test_every_step_has_a_pod_of_its_own(workplace: Any, jobs: dict[str, Any]) -> None:
    [run] = workplace.runs()
    assert jobs.keys() == {"", *run.step_keys_to_execute}
    assert jobs.keys() > FITS


def test_nothing_is_left_for_other_steps_but_on_the_volume(
    workplace: Any, jobs: dict[str, Any]
) -> None:
    """Each pod has a storage of Dagster of its own; the volume has the logs."""
    stored = {path for path in (workplace.home / "storage").rglob("*") if path.is_file()}
    assert {path.parent.name for path in stored} == {"compute_logs", "running"}


def test_a_fit_has_a_gpu_and_everything_else_a_small_pod(jobs: dict[str, Any]) -> None:
    for step, pod in jobs.items():
        [container] = pod["containers"]
        fits = step in FITS
        assert container["image"] == (f"{IMAGE}-cuda" if fits else IMAGE)
        limits = container["resources"]["limits"]
        assert limits.get("nvidia.com/gpu") == ("1" if fits else None)
        assert ("nodeSelector" in pod, "tolerations" in pod) == (fits, fits)
    assert jobs[""]["containers"][0]["resources"] == LOCATION["resources"]


def test_every_pod_has_the_volume_and_secrets_and_no_right_that_it_does_not_need(
    jobs: dict[str, Any],
) -> None:
    for step, pod in jobs.items():
        [container] = pod["containers"]
        assert pod["securityContext"] == LOCATION["podSecurityContext"]
        assert container["securityContext"] == LOCATION["securityContext"]
        # Steps are launched by the run.
        assert pod["automountServiceAccountToken"] is (step == "")
        assert pod["volumes"] == LOCATION["volumes"]
        assert container["volumeMounts"] == LOCATION["volumeMounts"]
        assert {"secretRef": {"name": "cxr-pipeline"}} in container["envFrom"]
        assert {entry["name"] for entry in container["env"]} > ENVIRONMENT.keys()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"step_pods": "["}, "is not YAML"),
        ({"step_pods": "per_step: {}"}, 'unexpected config entry "per_step"'),
        (
            {"step_pods": "per_step_k8s_config: {convnext_model: {}}"},
            "per_step_k8s_config has no op convnext_model: did you mean convnext_model_fit?",
        ),
        ({"step_pods": "{}", "data_root": "s3://hospital/cxr"}, "all pods mount"),
    ],
)
def test_settings_that_cannot_work_stop_the_code_location(
    given: dict[str, str], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        pods.executor(Settings(**given), ["convnext_model_fit", "metrics_report"])
