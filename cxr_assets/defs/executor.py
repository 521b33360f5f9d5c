"""The executor: runs all steps in the run's process, holds the run's lock, ends its MLflow run.

Every launch passes through it (``dg launch``, ``dagster job execute``, the UI, the schedule), and
it knows how the run ended. On Kubernetes, each step can run in a pod of its own instead.
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.execution.context.system import PlanOrchestrationContext
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.execution.resources_init import get_required_resource_keys_to_init
from dagster._core.execution.retries import RetryMode
from dagster._core.executor.in_process import InProcessExecutor

from cxr_assets import liveness, tracking
from cxr_assets.defs.resources import executing, settings


class TrackedExecutor(dg.Executor):
    """Delegates to another executor, holds the run's lock, and ends its MLflow run as it ends."""

    def __init__(self, steps: dg.Executor) -> None:
        self._steps = steps

    @property
    def retries(self) -> RetryMode:
        """How steps are retried."""
        return self._steps.retries

    def execute(
        self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan
    ) -> Iterator[dg.DagsterEvent]:
        """Run the steps; MLflow ends FINISHED, FAILED or KILLED as Dagster does."""
        instance = plan_context.instance
        if not os.environ.get("DAGSTER_HOME"):
            plan_context.log.warning(
                "DAGSTER_HOME is not set: Dagster forgets this run when the command ends. Set it "
                f"to keep the next one: export DAGSTER_HOME={settings.layout.root}/dagster"
            )
        try:
            # Held until the process ends: Dagster records the end of the run only after this
            # method. `fail_dead_runs` removes it.
            liveness.Lock(_locks(instance) / plan_context.run_id, {})
        except OSError as error:
            plan_context.log.warning(
                f"This run has no lock ({error}): if its process is killed, Dagster shows it as "
                "running until `max_runtime_seconds` in dagster.yaml have passed"
            )
        for dead in fail_dead_runs(instance):
            plan_context.log.warning(f"Run {dead} was killed and is now marked as failed")
        executing.add(plan_context.run_id)
        status = "KILLED"
        try:
            failed = False
            with self._mlflow_run(plan_context, execution_plan):
                for event in self._steps.execute(plan_context, execution_plan):
                    failed = failed or event.is_step_failure
                    yield event
            status = "FAILED" if failed else "FINISHED"
        except Exception:
            status = "FAILED"
            raise
        finally:
            tracking.close(status)

    def _mlflow_run(
        self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan
    ) -> AbstractContextManager[Any]:
        """Start the MLflow run in this process, if steps that need it run in other ones."""
        if isinstance(self._steps, InProcessExecutor):
            return nullcontext()
        job = plan_context.job.get_definition()
        needed = get_required_resource_keys_to_init(execution_plan, job)
        if "mlflow" not in needed:
            return nullcontext()
        config: Any = plan_context.run_config.get("resources", {})
        return dg.build_resources(
            {name: job.resource_defs[name] for name in needed},
            plan_context.instance,
            {name: given for name, given in config.items() if name in needed},
            plan_context.dagster_run,
            plan_context.log,
        )


def fail_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """Mark unfinished runs whose process is gone as failed, or as canceled.

    A run without a lock is left alone: it has not started yet, or runs on a host that does not
    share Dagster's storage.

    Returns:
        Their ids.
    """
    found = []
    for lock, _ in liveness.dead(_locks(instance)):
        run = instance.get_run_by_id(lock.name)
        if run is not None and not run.is_finished:
            found.append(run.run_id)
            message = (
                "The process of this run is gone: it was killed, ran out of memory, or the machine "
                "stopped. Once it is launched again, training resumes from its last checkpoint."
            )
            if run.status is dg.DagsterRunStatus.CANCELING:
                instance.report_run_canceled(run, message)
            else:
                instance.report_run_failed(run, message)
        lock.unlink(missing_ok=True)
    return found


def _locks(instance: dg.DagsterInstance) -> Path:
    return Path(instance.storage_directory()) / "running"


@dg.executor(name="tracked_in_process")
def tracked_in_process(context: dg.InitExecutorContext) -> dg.Executor:
    """Runs steps in one process: libraries are imported once, and the two trainings do not compete
    for cores."""
    return TrackedExecutor(InProcessExecutor(RetryMode.ENABLED))


def chosen(*steps: dg.AssetsDefinition) -> dg.ExecutorDefinition:
    """The executor of this installation: the one of the setting ``step_pods``, if there is one.

    Args:
        steps: assets and checks, which it runs.

    Raises:
        SettingsError: it cannot be used.
    """
    if settings.step_pods is None:
        return tracked_in_process
    from cxr_assets.defs import pods

    ops = {node.name for step in steps for node in step.node_def.iterate_op_defs()}
    return pods.executor(settings, ops)
