"""The plan of a training: its fingerprint, its work folder, and what exists of it already."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from cxr_assets.experiment import Experiment
from cxr_assets.layout import Layout
from cxr_assets.learning import base_weights
from cxr_assets.learning.convnext import ConvNext
from cxr_assets.learning.probe import Dinov2Probe
from cxr_assets.learning.recipe import Recipe
from cxr_assets.progress import Progress
from cxr_assets.provenance import code_version, fingerprint
from cxr_assets.radiographs.dataset import DatasetError, DatasetRecord
from cxr_serving.model import hashes, store
from cxr_serving.model.atomic import set_aside, write_file
from cxr_serving.model.bundle import CHECKPOINT_FILE, HISTORY_FILE, BundleError

FINISHED_FILE = "finished.json"
# They import all other code that shapes a bundle: recipes, networks, data loading.
SHAPED_BY = ("cxr_assets.learning.export", "cxr_assets.learning.fit")

RECIPES: dict[str, type[Recipe]] = {"convnext_model": ConvNext, "dinov2_probe": Dinov2Probe}


class Finished(BaseModel):
    """The contents of ``finished.json``.

    Attributes:
        mlflow_run_id: MLflow run with the curves, if any.
        files: sha256 by name of the files in the work folder that go into the bundle.
    """

    mlflow_run_id: str | None
    files: dict[str, str]


@dataclass(frozen=True)
class Plan:
    """One training.

    Attributes:
        asset: the model's asset name.
        recipe: of this model.
        experiment: all settings.
        layout: where data is and bundles go.
        dataset: record of the processed dataset.
        network: transformers configuration.
        weights: identity of the base weights; None when from scratch.
        teacher: identity of the teacher's weights; None without distillation.
        code: digest of the code and library versions that shape the result.
        fingerprint: the same fingerprint means the same training.
    """

    asset: str
    recipe: Recipe
    experiment: Experiment
    layout: Layout
    dataset: DatasetRecord
    network: dict[str, Any]
    weights: str | None
    teacher: str | None
    code: str
    fingerprint: str

    @property
    def work(self) -> Path:
        """Folder that an interrupted run resumes from."""
        return self.layout.work(self.fingerprint)

    @property
    def lock(self) -> Path:
        """Lock that is held while this training runs or is exported."""
        return self.work.with_suffix(".lock")

    @property
    def bundles(self) -> Path:
        """Folder of the asset's bundles."""
        return self.layout.models(self.asset)

    @property
    def finished(self) -> bool:
        """Whether there is an intact, finished fit that is not exported yet."""
        try:
            record = Finished.model_validate_json((self.work / FINISHED_FILE).read_bytes())
            return all(
                hashes.of_file(self.work / name) == sha256 for name, sha256 in record.files.items()
            )
        except (OSError, ValidationError):
            return False

    def finish(self, mlflow_run_id: str | None) -> None:
        """Record that the fit in the work folder is finished.

        Args:
            mlflow_run_id: MLflow run with its curves, if any.

        Raises:
            OSError: the record cannot be written.
        """
        files = {name: hashes.of_file(self.work / name) for name in (CHECKPOINT_FILE, HISTORY_FILE)}
        record = Finished(mlflow_run_id=mlflow_run_id, files=files)
        write_file(self.work / FINISHED_FILE, record.model_dump_json().encode())

    def published(self) -> Path | None:
        """The newest bundle of this fingerprint, if any."""
        return store.find(self.bundles, self.fingerprint)

    def settled(self) -> str | None:
        """Why no training is needed, or None.

        Returns:
            ``reused <version>`` if a bundle of this fingerprint is published, or a message about
            the finished fit that waits for its export.
        """
        if self.finished:
            return f"a finished fit in {self.work} waits for its export"
        published = self.published()
        return f"reused {published.name}" if published else None

    def set_aside_broken(self, progress: Progress) -> None:
        """Set aside broken bundles and records of this training.

        Call this while holding the lock, if the training is not settled.

        Args:
            progress: called with a line for each bundle or record that is broken.

        Raises:
            OSError: it cannot be renamed.
        """
        if (self.work / FINISHED_FILE).exists() and not self.finished:
            aside = set_aside(self.work / FINISHED_FILE)
            progress(f"set aside as {aside}, because a file that it lists is missing or changed")
        for version in store.versions(self.bundles):
            if version.endswith(self.fingerprint[:8]):
                try:
                    store.verify(self.bundles / version)
                except BundleError as error:
                    progress(f"set aside as {set_aside(self.bundles / version)}: {error}")

    def discard(self) -> None:
        """Delete an unfinished or unexported fit, so that the next one starts from the beginning.

        Call this while holding the lock.
        """
        discarded = self.work.with_name(f".{self.work.name}.discarded")
        if discarded.exists():
            shutil.rmtree(discarded)
        if self.work.exists():
            # Rename first: a kill must not leave a folder with some of its files missing.
            self.work.rename(discarded)
            shutil.rmtree(discarded)


def plan(asset: str, experiment: Experiment, layout: Layout) -> Plan:
    """Plan a training, without running it.

    Raises:
        DatasetError: there is no processed dataset, or it was prepared for another experiment.
        PretrainedError: base weights are not available.
    """
    recipe = RECIPES[asset](experiment)
    dataset = DatasetRecord.read(layout.processed)
    if dataset.classes != experiment.classes:
        raise DatasetError(
            f"the dataset in {layout.processed} has the classes {', '.join(dataset.classes)}, the "
            f"experiment {', '.join(experiment.classes)}: materialise processed_dataset again"
        )
    for name in ("val_fraction", "test_fraction", "seed"):
        prepared, wanted = getattr(dataset, name), getattr(experiment.data, name)
        if prepared != wanted:
            raise DatasetError(
                f"the dataset in {layout.processed} was prepared with data.{name}={prepared}, the "
                f"experiment has {wanted}: materialise processed_dataset again"
            )
    network = recipe.network(dataset.image_size)
    for key in ("_name_or_path", "transformers_version"):
        network.pop(key, None)
    weights, teacher = base_weights.identity(*recipe.base), base_weights.identity(*recipe.teacher)
    code = code_version(*SHAPED_BY)
    identity = fingerprint(
        {
            "asset": asset,
            "data": dataset.data_version,
            "classes": dataset.classes,
            "network": network,
            "weights": weights,
            "teacher": teacher,
            "settings": recipe.settings(),
            "deterministic": experiment.deterministic,
            "code": code,
        }
    )
    return Plan(
        asset, recipe, experiment, layout, dataset, network, weights, teacher, code, identity
    )
