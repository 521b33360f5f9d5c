"""Steps in pods of their own: the one module that knows Kubernetes."""

import difflib
from collections.abc import Collection
from importlib.util import find_spec

import dagster as dg
import yaml
from dagster._config import process_config
from dagster._core.definitions.executor_definition import multiple_process_executor_requirements

from cxr_assets.defs.executor import TrackedExecutor
from cxr_assets.settings import Settings, SettingsError


def executor(settings: Settings, ops: Collection[str]) -> dg.ExecutorDefinition:
    """The executor that runs each step in a pod.

    Args:
        settings: with ``step_pods``, the settings of dagster-k8s' executor as YAML.
        ops: names of all that may have settings of its own.

    Raises:
        SettingsError: dagster-k8s is not installed or rejects them, they name no op, or the pods
            would share no data root.
    """
    if find_spec("dagster_k8s") is None:
        raise SettingsError(
            "CXR_STEP_PODS needs dagster-k8s, which is not installed: pip install "
            "'cxr-retraining[k8s]', or unset it, and all steps run in the process of the run"
        )
    from dagster_k8s import k8s_job_executor

    if settings.layout.url is not None:
        raise SettingsError(
            f"CXR_STEP_PODS needs a data root that all pods mount, not {settings.layout.url}: set "
            "CXR_DATA_ROOT to a shared volume, or unset CXR_STEP_PODS, and all steps run in the "
            "pod of the run"
        )
    try:
        config = yaml.safe_load(settings.step_pods or "")
    except yaml.YAMLError as error:
        raise SettingsError(f"CXR_STEP_PODS is not YAML: {error}") from None
    checked = process_config(k8s_job_executor.config_schema.config_type, config)
    if not checked.success:
        problems = "; ".join(error.message for error in checked.errors or ())
        raise SettingsError(f"CXR_STEP_PODS: {problems}")
    for name in (checked.value or {}).get("per_step_k8s_config", {}):
        if name not in ops:  # dagster-k8s would leave the step in a pod like all others
            near = difflib.get_close_matches(name, ops, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(ops))}"
            raise SettingsError(f"CXR_STEP_PODS: per_step_k8s_config has no op {name}: {hint}")

    @dg.executor(
        name="tracked_pods",
        config_schema=k8s_job_executor.config_schema,
        requirements=multiple_process_executor_requirements(),
    )
    def tracked_pods(context: dg.InitExecutorContext) -> dg.Executor:
        return TrackedExecutor(k8s_job_executor.executor_creation_fn(context))

    return tracked_pods.configured(config)
