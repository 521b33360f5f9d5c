"""Publishing a finished fit as a bundle."""

import io
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import NamedTemporaryFile

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from filelock import FileLock, Timeout
from torchmetrics.functional.classification import multiclass_f1_score

from cxr_assets.learning import gate, onnx
from cxr_assets.learning.fit import locked
from cxr_assets.learning.module import MONITOR, TEMPERATURE, Classification
from cxr_assets.learning.plan import FINISHED_FILE, Plan
from cxr_assets.learning.reference import Saved
from cxr_assets.progress import Progress, held
from cxr_assets.radiographs import dataset, membership
from cxr_serving.model import bundle, hashes, store
from cxr_serving.model.bundle import (
    CHECKPOINT_FILE,
    HISTORY_FILE,
    INT8_FILE,
    ONNX_FILE,
    BundleRecord,
    Int8,
)
from cxr_serving.model.distribution import Distribution
from cxr_serving.model.predictor import softmax
from cxr_serving.model.preprocessing import Preprocessing
from cxr_serving.model.reference import INT8_TOLERANCE, TOLERANCE, Reference

# Parts of a Lightning checkpoint that rebuilding the network needs.
_KEPT = (
    "epoch",
    "global_step",
    "pytorch-lightning_version",
    "hparams_name",
    "hyper_parameters",
    "state_dict",
)
# How long an interrupted training can be resumed: checkpoints are too large to keep longer.
_ABANDONED = timedelta(days=30)
# Validation images to compare network and ONNX on, in addition to the reference images.
_COMPARED = 24
_BATCH = 16
_WORK = re.compile(r"[0-9a-f]{16}")
# Macro F1 that int8 may cost. On 600 images, the 95 % interval of 0.9 is 0.024 either way.
_MACRO_F1_DROP = 0.005


class ExportError(Exception):
    """A training cannot be exported; the message says why and what to do."""


class ParityError(ExportError):
    """The exported network gives other answers than the trained one."""


def export(
    plan: Plan,
    dagster_run_id: str | None = None,
    point: bool = True,
    progress: Progress = lambda line: None,
) -> tuple[Path, bool]:
    """Publish a finished fit as a bundle, or find the bundle published before.

    The same training on the same machine gives the same weights, configuration and ``best.ckpt``,
    byte for byte; ``history.csv`` holds seconds, and ``bundle.json`` the time and the runs.

    Args:
        plan: of the training.
        dagster_run_id: run that publishes it, if any.
        point: whether ``latest.json`` is set to it, so that it is served.
        progress: called with a line before it waits for another process.

    Returns:
        The bundle's directory, and whether it was published now.

    Raises:
        ExportError: there is neither a finished fit nor a bundle of this fingerprint.
        BundleError: the bundle cannot be written.
        ParityError: the ONNX network gives other answers.
        TrainingError: the lock cannot be written.
    """
    with locked(plan, progress), _publishing(plan, progress):
        published = plan.published()
        if plan.finished and not (published and _is_of_this_fit(published, plan)):
            _require_dataset(plan)
            directory = _publish(plan, dagster_run_id, point)
            plan.discard()
            return directory, True
        if published is None:
            raise ExportError(
                f"no finished fit of {plan.asset} in {plan.work} and no bundle of fingerprint "
                f"{plan.fingerprint[:8]} in {plan.bundles}: run the fit first (settings, data or "
                "code have changed since)"
            )
        if point:
            store.write_pointer(plan.bundles, published.name)
        if plan.finished:  # whoever published it was killed before this
            plan.discard()
        return published, False


def prune(plan: Plan, progress: Progress = lambda line: None) -> list[str]:
    """Delete the asset's oldest bundles, and the work folders of abandoned trainings.

    Bundles are kept to the experiment's ``keep_versions``, and those that ``latest.json``, a report
    or a release names.

    Returns:
        The deleted versions.
    """
    # By the clock of the file system, as this machine's may be another one.
    with NamedTemporaryFile(dir=plan.layout.root, prefix=".now") as made:
        now = Path(made.name).stat().st_mtime
    for lock in sorted(plan.work.parent.glob("*.lock")):
        if _WORK.fullmatch(lock.stem):
            _prune_work(lock, now)
    layout = plan.layout
    with _publishing(plan, progress):
        named = [*store.versions(layout.reports), *store.versions(layout.releases)]
        return store.prune(plan.bundles, plan.experiment.keep_versions, protect=named)


def _prune_work(lock: Path, now: float) -> None:
    work = lock.with_suffix("")
    newest = max(path.stat().st_mtime for path in (lock, *work.glob("*")))
    if now - newest < _ABANDONED.total_seconds():
        return
    with suppress(Timeout), FileLock(lock, blocking=False):  # no training of it runs
        if work.exists():
            shutil.rmtree(work)
        lock.unlink()


def _is_of_this_fit(directory: Path, plan: Plan) -> bool:
    """Whether a bundle holds the fit in the work folder: the seconds in the curves say so."""
    return hashes.of_file(directory / HISTORY_FILE) == hashes.of_file(plan.work / HISTORY_FILE)


def _require_dataset(plan: Plan) -> None:
    now = dataset.DatasetRecord.read(plan.layout.processed).data_version
    if now != plan.dataset.data_version:
        raise ExportError(
            f"the processed dataset has changed since {plan.asset} was trained (version {now[:8]}, "
            f"not {plan.dataset.data_version[:8]}), so the bundle could not say which images it "
            "knows: train it again"
        )


@contextmanager
def _publishing(plan: Plan, progress: Progress) -> Iterator[None]:
    """Hold the lock of an asset's bundles, so that none is pruned while it is being published."""
    try:
        plan.bundles.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError(
            f"{plan.bundles} cannot be written: {error.strerror}. Make the data root writable, "
            "then run the same again: the finished fit is kept"
        ) from error
    with held(plan.bundles / ".lock", "a model is being published", progress):
        yield


def _publish(plan: Plan, dagster_run_id: str | None, point: bool) -> Path:
    history = pd.read_csv(plan.work / HISTORY_FILE)
    best = history.loc[history[MONITOR].idxmax()]
    now = datetime.now(UTC)
    record = BundleRecord(
        asset=plan.asset,
        version=bundle.new_version(plan.fingerprint, now),
        fingerprint=plan.fingerprint,
        classes=plan.dataset.classes,
        draw=plan.dataset.draw,
        input_size=plan.dataset.image_size,
        created_at=now,
        data_version=plan.dataset.data_version,
        code_version=plan.code,
        seed=plan.experiment.seed,
        pretrained=plan.weights,
        teacher=plan.teacher,
        synthetic=plan.dataset.synthetic,
        validation={
            name.removeprefix("val_"): float(best[name])
            for name in ("val_loss", "val_accuracy", "val_macro_f1", "val_auroc")
        },
        temperature=float(best[TEMPERATURE]),
        flip_averaging=plan.recipe.flip_averaging,
        dagster_run_id=dagster_run_id,
        mlflow_run_id=json.loads((plan.work / FINISHED_FILE).read_text(encoding="utf-8"))[
            "mlflow_run_id"
        ],
    )

    def write(directory: Path) -> BundleRecord:
        module = plan.recipe.restore(plan.work / CHECKPOINT_FILE)
        (directory / CHECKPOINT_FILE).write_bytes(_checkpoint(plan.work / CHECKPOINT_FILE, module))
        # However the network is loaded, its probabilities are calibrated.
        with torch.no_grad():
            for parameter in module.network.classifier.parameters():
                parameter.div_(record.temperature)
        module.network.save_pretrained(directory)
        Preprocessing(plan.dataset.image_size).write(directory)
        shutil.copyfile(plan.work / HISTORY_FILE, directory / HISTORY_FILE)
        membership.write(directory, plan.layout.processed)
        saved = Saved(directory, record.flip_averaging)
        reference = saved.reference()
        reference.write(directory)
        return _serve(directory, record, plan, saved, reference) if plan.recipe.onnx else record

    return store.publish(plan.bundles, record, write, point)


def _serve(
    directory: Path, record: BundleRecord, plan: Plan, saved: Saved, reference: Reference
) -> BundleRecord:
    """Write what a served model has in addition: ONNX in float32 and int8, drift statistics, gate.

    Returns:
        The record, with the effect of int8 and of the gate.

    Raises:
        ParityError: a probability differs by more than 1e-4.
    """
    rows = dataset.kept(plan.layout.processed, "val")
    labels = torch.from_numpy(dataset.labels(rows, record.classes))
    files, every = rows["file"].tolist(), max(1, len(rows) // _COMPARED)

    def validation() -> Iterator[npt.NDArray[np.uint8]]:
        # Read again each time: decoding is cheap next to inference, and saves memory.
        return dataset.batches(plan.layout.processed, files, record.input_size, _BATCH)

    onnx.write(directory, record.flip_averaging)
    logits, _, features = onnx.run(directory / ONNX_FILE, validation())
    answers = softmax(logits)
    some = dataset.read(plan.layout.processed, files[::every], record.input_size)
    others = np.abs(answers[::every] - saved.predict(some)).max()
    on_reference = reference.difference(onnx.predict(directory / ONNX_FILE, reference.images))
    difference = np.max([on_reference, others])
    if not difference <= TOLERANCE:  # nan, too
        raise ParityError(
            f"{directory / ONNX_FILE} differs from the network by {difference:.1e} in probability "
            f"on reference and validation images, more than {TOLERANCE}: nothing was published, "
            "the finished fit is kept. Another version of torch or onnxruntime may have caused it: "
            "see constraints.txt"
        )
    Distribution.of(validation(), answers).write(directory)

    onnx.quantise(directory)
    # NaN counts as a wrong answer.
    rounded, reference_rounded = (
        np.nan_to_num(onnx.predict(directory / INT8_FILE, images))
        for images in (validation(), reference.images)
    )
    exact, coarse = (
        float(
            multiclass_f1_score(torch.tensor(given), labels, len(record.classes), average="macro")
        )
        for given in (answers, rounded)
    )
    difference = reference.difference(reference_rounded)
    accepted = bool(exact - coarse < _MACRO_F1_DROP and difference <= INT8_TOLERANCE)
    if not accepted:
        (directory / INT8_FILE).unlink()
    int8 = Int8(
        difference=difference,
        macro_f1=coarse,
        macro_f1_drop=exact - coarse,
        accepted=accepted,
    )
    fitted, rejects = gate.fit(
        plan.layout.processed,
        record.classes,
        record.input_size,
        lambda images: onnx.run(directory / ONNX_FILE, images)[2],
        features,
    )
    fitted.write(directory)
    return record.model_copy(update={"int8": int8, "gate": rejects})


def _checkpoint(path: Path, module: Classification) -> bytes:
    # Parts that only resuming needs are large and contain paths and times of this machine.
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    checkpoint["state_dict"] = module.state_dict()
    content = io.BytesIO()
    torch.save({key: checkpoint[key] for key in _KEPT}, content)
    return content.getvalue()
