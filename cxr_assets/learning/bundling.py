"""What goes into the bundle of a finished fit."""

import io
import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torchmetrics.functional.classification import multiclass_f1_score

from cxr_assets.learning import gate, onnx
from cxr_assets.learning.export import ParityError
from cxr_assets.learning.module import MONITOR, TEMPERATURE, Classification
from cxr_assets.learning.plan import FINISHED_FILE, Plan
from cxr_assets.learning.reference import Saved
from cxr_assets.radiographs import dataset, membership
from cxr_serving.model import bundle, store
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
# Validation images to compare network and ONNX on, in addition to the reference images.
_COMPARED = 24
_BATCH = 16
# Macro F1 that int8 may cost. On 600 images, the 95 % interval of 0.9 is 0.024 either way.
_MACRO_F1_DROP = 0.005


def publish(plan: Plan, dagster_run_id: str | None, point: bool) -> Path:
    """Publish the finished fit of a training; its lock and that of the bundles are held.

    Args:
        plan: of the training.
        dagster_run_id: run that publishes it, if any.
        point: whether ``latest.json`` is set to it.

    Returns:
        The bundle's directory.

    Raises:
        BundleError: the bundle cannot be written.
        ParityError: the ONNX network gives other answers.
    """
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
