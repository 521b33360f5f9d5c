"""The executor: runs steps in the run's own process and closes the MLflow run with its outcome.

dagster-mlflow opens one MLflow run for each Dagster run, but its hook closes it after every step,
needs the resource in all of them, and is not there when assets are materialised outside a job. The
executor is the one place that every launch passes through (``job execute``, the UI, the schedule,
``asset materialize``) and that knows how the run ended.
"""

from collections.abc import Iterator

import dagster as dg
import mlflow
from dagster._core.execution.context.system import PlanOrchestrationContext
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.execution.retries import RetryMode
from dagster._core.executor.in_process import InProcessExecutor


class TrackedExecutor(dg.Executor):
    """Delegates to another executor and ends the active MLflow run as the Dagster run ends."""

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
            while mlflow.active_run() is not None:
                mlflow.end_run(status)


@dg.executor(name="tracked_in_process")
def tracked_in_process(context: dg.InitExecutorContext) -> dg.Executor:
    """In-process execution: the libraries are imported once, not once a step, and the two trainings
    do not compete for the same cores."""
    return TrackedExecutor(InProcessExecutor(RetryMode.ENABLED))
