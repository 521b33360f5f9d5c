"""What a job on the cluster does: one step, whose answer it leaves."""

import traceback
from collections.abc import Callable
from functools import partial
from typing import Any

import ray
from dagster_pipes import open_dagster_pipes

from cxr_assets import tracking, training
from cxr_assets.cluster import images, ranks
from cxr_assets.cluster.call import Answer, Call, Job
from cxr_assets.layout import Layout
from cxr_assets.learning.lock import TrainingError
from cxr_assets.learning.plan import plan as make_plan
from cxr_assets.progress import Progress
from cxr_assets.radiographs import decoding, raw
from cxr_assets.radiographs.preparation import PreparationError, prepare

_OTHER_CODE = (
    "the cluster has other code or other versions of libraries than the machine of the run: "
    "install the same on all"
)


def _prepare(call: Call, job: Job, layout: Layout, progress: Progress) -> bool:
    if call.arguments["decoding"] != decoding.version():
        raise PreparationError(_OTHER_CODE)
    settings = call.experiment
    write = partial(images.write, settings.compute, job)
    _, reused = prepare(
        layout, raw.read(layout), settings.data, settings.classes, progress, write=write
    )
    return reused


def _fit(call: Call, job: Job, layout: Layout, progress: Progress) -> None:
    plan = make_plan(call.arguments["asset"], call.experiment, layout)
    if plan.fingerprint != call.arguments["fingerprint"]:
        raise TrainingError(_OTHER_CODE)
    compute = call.experiment.compute
    if plan.recipe.embeds and not plan.settled():
        # Training finds them in the cache.
        embedder = partial(images.embedder_on, compute, job)
        plan.recipe.prepare(plan.network, layout, progress, embedder)
    engine = partial(ranks.run, compute, job)
    tracking.open_store(
        call.mlflow_uri, layout, progress, call.experiment.tracking.required, call.mlflow_run
    )
    status = "KILLED"
    try:
        training.fit(plan, progress, call.arguments["force"], engine)
        status = "FINISHED"
    except Exception:
        status = "FAILED"
        raise
    finally:
        tracking.close(status)


STEPS: dict[str, Callable[[Call, Job, Layout, Progress], Any]] = {
    "prepare": _prepare,
    "fit": _fit,
}


def run(job: Job, layout: Layout) -> bool:
    """Run the step of a job and leave its answer; returns whether it succeeded."""
    call = job.call()
    with open_dagster_pipes() as pipes:
        ray.init(log_to_driver=False)
        try:
            answer = Answer(result=STEPS[call.step](call, job, layout, pipes.log.info))
        except training.EXPLAINED as error:
            answer = Answer(error=str(error), permanent=True)
        except Exception as error:  # noqa: BLE001 - reported where the run is
            pipes.log.error(traceback.format_exc())
            answer = Answer(error=f"{type(error).__name__}: {error}")
        job.write_answer(answer)
    return answer.error is None
