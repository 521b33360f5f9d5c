"""The executor: runs steps in the run's own process, shows that it lives, and ends its MLflow run.

It is the one place that every launch passes through (``job execute``, the UI, the schedule,
``asset materialize``) and that knows how the run ended.
"""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
from dagster._core.execution.context.system import PlanOrchestrationContext
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.execution.retries import RetryMode
from dagster._core.executor.in_process import InProcessExecutor

from cxr_assets import liveness, tracking


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
        try:
            # Held until the process ends: Dagster has yet to write the end of the run when this is
            # left. `fail_dead_runs` removes it.
            liveness.Lock(_locks(instance) / plan_context.run_id, {})
        except OSError as error:
            plan_context.log.warning(
                f"This run has no lock ({error}): should its process be killed, Dagster takes it "
                "for running until `max_runtime_seconds` of dagster.yaml are over"
            )
        for dead in fail_dead_runs(instance):
            plan_context.log.warning(f"Run {dead} had been killed and is marked as failed")
        status = "KILLED"
        try:
            failed = False
            for event in self._steps.execute(plan_context, execution_plan):
                failed = failed or event.is_step_failure
                yield event
            status = "FAILED" if failed else "FINISHED"
        except Exception:
            status = "FAILED"
            raise
        finally:
            tracking.close(status)


def fail_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """Mark runs as failed, or canceled, that are unfinished and whose process is gone.

    A run without a lock is left alone: it is not executing yet, or on a host that does not share
    Dagster's storage.

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
                "stopped. Launch it again: a training resumes from its last checkpoint."
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
    """In-process execution: the libraries are imported once, not once a step, and the two trainings
    do not compete for the same cores."""
    return TrackedExecutor(InProcessExecutor(RetryMode.ENABLED))
