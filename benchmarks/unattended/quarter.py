"""Thirteen weeks in ten minutes, by the real schedule, daemon and service.

    python -m benchmarks.unattended.quarter --root build/quarter

Simulated are the images, the receiver of the messages, and the time in which code location, daemon
and runs live: of each minute ten seconds are lived, and the days between Sundays are skipped. A
page, ``quarter.html``, shows the weeks; the exit status is 1 when one does not go as planned.
"""

import argparse
import os
import shutil
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from benchmarks.serving import load
from benchmarks.unattended import page
from benchmarks.unattended.operation import STALE_DAYS, UNCHANGED_SECONDS, Operation
from benchmarks.unattended.page import Week, did
from benchmarks.unattended.pipeline import CHECKOUT, Late, Run, ended_by_sigterm

_PATIENTS = 70
_SETTINGS = (
    # So that the synthetic images are learnt within half a minute.
    *("data.image_size=64", "data.test_fraction=0.25", "model=convnextv2_demo"),
    *("trainer.max_epochs=12", "trainer.batch_size=16", "trainer.ema_decay=0.9"),
    *("trainer.augmentation.affine=0.3", "trainer.augmentation.exposure=0.3"),
    *("trainer.augmentation.detail=0", "trainer.augmentation.collimation=0"),
    # With some dozen test images chance alone costs more than the rule allows by default.
    *("release.rule.margin=-1", "release.rule.non_inferiority=0.4"),
    *("release.rule.class_loss=0.7", "release.rule.site_loss=0.7"),
    "release.rule.calibration_error=0.5",
)
_DRIFTING = 260
_BOTH = ["convnext_model", "dinov2_probe"]


class Deviation(Exception):
    """A week did not go as planned; the message says how."""


def _require(holds: object, what: str) -> None:
    if not holds:
        raise Deviation(what)


def _trained(operation: Operation, run: Run) -> None:
    """Both models are trained, released and served."""
    _require(run.status == "SUCCESS", f"the run ended with {run.status}")
    _require(run.trained == _BOTH, f"trained: {run.trained or 'nothing'}")
    _released(operation)


def _reused(operation: Operation, run: Run) -> None:
    """Everything is reused, says so, costs seconds, and confirms the model.

    The processor time does not depend on what else the machine does, so it needs no patience.
    """
    _require(run.status == "SUCCESS", f"the run ended with {run.status}")
    _require(not run.trained, f"trained: {run.trained}")
    _require(run.assets["processed_dataset"]["reused"], "the dataset was prepared again")
    if run.seconds > UNCHANGED_SECONDS:
        operation.week.notes.append(
            f"unchanged, but took {run.seconds:.0f} s; {UNCHANGED_SECONDS} s are the goal"
        )
    for seconds, kind, limit in (
        (run.processor_seconds, "of processor time", UNCHANGED_SECONDS),
        (run.seconds, "in all", UNCHANGED_SECONDS * operation.pipeline.patience),
    ):
        _require(seconds <= limit, f"it took {seconds:.0f} s {kind}, more than {limit:.0f}")


def _released(operation: Operation) -> None:
    _require(operation.week.decision == "released", f"decided: {operation.week.decision}")


def first(operation: Operation) -> None:
    """The first export of the archive: both models are trained, released and served."""
    operation.hospital.export(1)
    _trained(operation, operation.sunday())


def unchanged(operation: Operation) -> None:
    """Nothing has changed: all is reused, which confirms the model."""
    _reused(operation, operation.sunday())
    _released(operation)


def growth(operation: Operation) -> None:
    """New patients: both models are trained and released."""
    operation.hospital.export(2)
    _trained(operation, operation.sunday())


def corrections(operation: Operation) -> None:
    """Labels in doubt are corrected, and a patient withdraws consent: both models are trained."""
    operation.week.notes.append(operation.hospital.correct(operation.layout))
    operation.pipeline.command("cxr", "data", "forget", operation.hospital.patient)
    _trained(operation, operation.sunday())


def bad_data(operation: Operation) -> None:
    """The export is cut off: the run is blocked and notified, later that the model is stale; the
    released one serves on."""
    before = operation.serves()
    operation.hospital.export(2, share=0.5)
    run = operation.sunday()
    _require(run.status == "FAILURE", f"the run ended with {run.status}")
    _require(set(run.assets) == {"raw_kaggle"}, f"made: {', '.join(run.assets)}")
    operation.notified("retrain failed")
    # Nine days after the last Sunday, and not before.
    operation.later(hours=24)
    _require(operation.titles == ["retrain failed"], f"messages: {operation.titles}")
    operation.later(hours=48)
    operation.notified("The model is stale")
    _require(operation.serves() == before, "another model serves")


def repaired(operation: Operation) -> None:
    """The export is whole again, with new patients: both models are trained and released."""
    operation.hospital.export(3)
    _trained(operation, operation.sunday())


def drift(operation: Operation) -> None:
    """Healthy people alone are sent for a while: the drift is notified, and its sensor starts
    exactly one retraining, which has nothing new to train on."""
    _reused(operation, operation.sunday())
    operation.pipeline.sensor("retrain_on_drift")
    folder = operation.hospital.folder / "train" / "NORMAL"
    record = load.run(operation.port, folder, clients=2, requests=_DRIFTING)
    _require(not record.failed, f"{len(record.failed)} requests failed")
    operation.later(minutes=6)
    operation.later(minutes=61)
    run = operation.follow()
    _require(run.by == "retrain_on_drift", f"{run.by} started a run")
    _reused(operation, run)
    operation.notified("The images drift")
    for _ in range(2):
        operation.later(hours=5)
    _require(operation.idle, "there is another run")


def challenger(operation: Operation) -> None:
    """A learning rate that is far too low makes a worse model: it is held and notified, and the
    released one serves on."""
    before = operation.serves()
    operation.deploy("model.lr=1e-9")
    run = operation.sunday()
    _require(run.trained == _BOTH[:1], f"trained: {run.trained}")
    held = operation.week.decision or ""
    _require(held.startswith("held"), f"decided: {held}")
    version = run.assets["hf_release"]["version"]
    operation.notified(f"Release {version} is held")
    _require(operation.serves() == before, "another model serves")


def settings_back(operation: Operation) -> None:
    """The settings are as before: the model before is reused, and confirmed."""
    operation.deploy()
    _reused(operation, operation.sunday())
    _released(operation)


def pinned(operation: Operation) -> None:
    """Another seed, another model (the probe draws nothing); a person does not like it and pins
    the one before."""
    before = operation.serves()
    operation.deploy("seed=2")
    run = operation.sunday()
    _require(run.trained == _BOTH[:1], f"trained: {run.trained}")
    _released(operation)
    released = run.assets["hf_release"]["version"]
    operation.pipeline.until(lambda: operation.serves() == released, 60, "it serves")
    operation.pin(before)
    operation.week.pinned = True
    _require(operation.serves() == before, "the pinned model does not serve")


def still_pinned(operation: Operation) -> None:
    """The run confirms the released model, but the pinned one serves, until it is unpinned."""
    before = operation.serves()
    _reused(operation, operation.sunday())
    _require(operation.serves() == before, "the pinned model does not serve")
    operation.pin(None)


def upgrade(operation: Operation) -> None:
    """Another version of the training code: both models are trained, the dataset is reused."""
    code = operation.pipeline.root / "upgraded"
    for package in ("cxr_assets", "cxr_serving"):
        shutil.copytree(CHECKOUT / package, code / package)
    with (code / "cxr_assets/learning/fit.py").open("a") as file:
        file.write("\n_UPGRADED = True\n")
    operation.deploy("seed=2", code=code)
    run = operation.sunday()
    _trained(operation, run)
    _require(run.assets["raw_kaggle"]["unchanged"], "the images were collected again")
    _require(run.assets["processed_dataset"]["reused"], "the dataset was prepared again")


def missed(operation: Operation) -> None:
    """The daemon is down on Sunday, and up on Monday: it catches up once."""
    operation.pipeline.stop("daemon")
    # Not on Tuesday: the model would be stale, with a message or not, as the run is quick or slow.
    operation.week.sunday += timedelta(days=1)
    operation.skip_to(operation.week.sunday)
    operation.pipeline.start_daemon()
    run = operation.follow()
    _require(run.by == "weekly_retrain", f"{run.by} started a run")
    _reused(operation, run)
    operation.later(hours=1)
    _require(operation.idle, "there is another run")


WEEKS: tuple[Callable[[Operation], None], ...] = (
    *(first, unchanged, growth, corrections, bad_data, repaired, drift, challenger),
    *(settings_back, pinned, still_pinned, upgrade, missed),
)


def live(operation: Operation, event: Callable[[Operation], None]) -> Week:
    """Live through a week, and find out what did not go as planned."""
    week = operation.begin(" ".join((event.__doc__ or "").split()))
    for part in (event, _end):
        try:
            part(operation)
        except (Deviation, Late) as error:
            week.wrong.append(str(error))
    return week


def _end(operation: Operation) -> None:
    """The week is over: each event has had its one message, and no model is old without one."""
    operation.end()
    week = operation.week
    _require(
        sorted(week.messages) == sorted(week.expected),
        f"messages: {week.messages}, planned: {week.expected}",
    )
    old = week.age > STALE_DAYS and not week.pinned
    confirmed = any("hf_release" in run.assets for run in week.runs)
    held = (week.decision or "").startswith("held")
    _require(old == (held or not confirmed), f"the model was confirmed {week.age:.1f} days ago")


def main() -> None:
    """Live through the weeks, and print and draw them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=Path("build/quarter"), help="a new folder")
    parser.add_argument(
        "--patience", type=float, default=1, metavar="FACTOR",
        help="how many times longer everything may take, on a busy machine",
    )  # fmt: skip
    arguments = parser.parse_args()
    ended_by_sigterm()
    root: Path = arguments.root.resolve()
    if root.exists():
        sys.exit(f"{root} exists: delete it, or name a new folder with --root")
    started, weeks = time.monotonic(), []
    with Operation(root, _PATIENTS, _SETTINGS, arguments.patience) as operation:
        for event in WEEKS:
            week = live(operation, event)
            weeks.append(week)
            print(f"{week.number:2} {week.plan}")
            for run in week.runs:
                took = f"{run.seconds:.0f} s, {run.processor_seconds:.0f} s of processor time"
                print(f"   {run.status}, {run.by}, {took}: {', '.join(did(run))}")
            print(
                f"   {week.decision or 'nothing released'}; serves {week.served}; {week.messages}"
            )
            for line in week.notes:
                print(f"   {line}")
            for line in week.wrong:
                print(f"   NOT AS PLANNED: {line}", flush=True)
            print(f"   load {os.getloadavg()[0]:.1f}", flush=True)
            page.write(root / "quarter.html", weeks, time.monotonic() - started)
    print(f"{time.monotonic() - started:.0f} s; look at {root / 'quarter.html'}")
    sys.exit(any(week.wrong for week in weeks))


if __name__ == "__main__":
    main()
