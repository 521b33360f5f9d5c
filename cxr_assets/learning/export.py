"""From a finished fit to a published bundle."""

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from cxr_assets.learning.module import MONITOR
from cxr_assets.learning.plan import FINISHED_FILE, Plan
from cxr_assets.radiographs.naming import CLASSES
from cxr_serving import bundle
from cxr_serving.bundle import CHECKPOINT_FILE, HISTORY_FILE, BundleRecord
from cxr_serving.preprocessing import Preprocessing


class ExportError(Exception):
    """A training cannot be exported; the message says why and what to do."""


def export(plan: Plan, dagster_run_id: str | None = None) -> tuple[Path, bool]:
    """Publish a finished fit as a bundle, or find the one that was published before.

    Returns:
        The bundle's directory, and whether it was published now.

    Raises:
        ExportError: there is neither a finished fit nor a bundle of this fingerprint.
    """
    if not plan.finished:
        published = plan.published()
        if published is None:
            raise ExportError(
                f"no finished fit of {plan.asset} in {plan.work} and no bundle of fingerprint "
                f"{plan.fingerprint[:8]} in {plan.bundles}: run the fit first (settings, data or "
                "code have changed since)"
            )
        bundle.write_pointer(plan.bundles, published.name)
        return published, False
    history = pd.read_csv(plan.work / HISTORY_FILE)
    best = history.loc[history[MONITOR].idxmax()]
    now = datetime.now(UTC)
    record = BundleRecord(
        asset=plan.asset,
        version=bundle.new_version(plan.fingerprint, now),
        fingerprint=plan.fingerprint,
        classes=CLASSES,
        input_size=plan.dataset.image_size,
        created_at=now,
        data_version=plan.dataset.data_version,
        code_version=plan.code,
        seed=plan.experiment.seed,
        pretrained=plan.weights,
        synthetic=plan.dataset.synthetic,
        validation={
            name.removeprefix("val_"): float(best[name])
            for name in ("val_loss", "val_accuracy", "val_macro_f1", "val_auroc")
        },
        dagster_run_id=dagster_run_id,
        mlflow_run_id=json.loads((plan.work / FINISHED_FILE).read_text())["mlflow_run_id"],
    )

    def write(directory: Path) -> None:
        module = plan.recipe.module.load_from_checkpoint(
            plan.work / CHECKPOINT_FILE, map_location="cpu", weights_only=True
        )
        module.network.save_pretrained(directory)
        Preprocessing(plan.dataset.image_size).write(directory)
        for name in (CHECKPOINT_FILE, HISTORY_FILE):
            shutil.copyfile(plan.work / name, directory / name)

    directory = bundle.publish(plan.bundles, record, write)
    plan.discard()
    return directory, True
