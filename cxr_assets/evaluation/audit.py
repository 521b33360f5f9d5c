"""The label audit: images of the dataset that need a second look, for the local report alone."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from transformers import AutoModelForImageClassification

from cxr_assets.evaluation import rejection, suspects
from cxr_assets.evaluation.scoring import Evaluation
from cxr_assets.evaluation.wording import suspicions
from cxr_assets.layout import Layout
from cxr_assets.learning.embeddings import embed
from cxr_assets.progress import Progress
from cxr_assets.radiographs import dataset, leakage
from cxr_serving.model.gate import Verdict
from cxr_serving.model.predictor import Predictor
from cxr_serving.model.report import LabelAudit, NoAudit

AUDIT_FILE = "label_audit.csv"
# `gate`: the gate of the main model rejects the image, for the reasons in the column of that name.
ISSUES = ("label", "outlier", "duplicate", "gate")
# The last column is for the reader to correct; extra columns do not matter in a table of
# corrections. `other` is the image that a near duplicate resembles.
COLUMNS = [
    *("source", "path", "split", "given", "suggested", "issue", "reasons", "score", "other"),
    *("sha256", "other_sha256", "label"),
]

_LEARNED = ("train", "val")


@dataclass(frozen=True)
class Answered:
    """What the main model says of an image.

    Attributes:
        probabilities: float32 [C].
        verdict: of its gate; None of a model without one.
    """

    probabilities: npt.NDArray[np.float32]
    verdict: Verdict | None


@dataclass(frozen=True)
class Audited:
    """The result of an audit.

    Attributes:
        summary: what the report says.
        table: one row per suspicious image, :data:`COLUMNS`, and for the page ``file`` and
            ``other_file`` below the processed dataset; None where there was no audit.
    """

    summary: LabelAudit | NoAudit
    table: pd.DataFrame | None = None


def answered(evaluations: Iterable[Evaluation]) -> dict[str, Answered]:
    """What the main model says of each image it was evaluated on, by the file of the image."""
    found: dict[str, Answered] = {}
    for one in evaluations:
        files, probabilities = one.images.table["path"], one.models[0].probabilities
        verdicts: Sequence[Verdict | None] = one.verdicts or [None] * len(files)
        answers = map(Answered, probabilities, verdicts)
        found.update(zip(files, answers, strict=True))
    return found


def audit(
    layout: Layout,
    main: Predictor,
    probe: Path,
    answers: Mapping[str, Answered],
    progress: Progress,
) -> Audited:
    """Look for labels in doubt, for outliers, for near duplicates, and for what the gate rejects.

    The label of an image that was trained or selected on is judged by a linear model on the
    embeddings of the probe's backbone which has not seen the patient, of any other image by what
    the main model answers. Where the main model has a gate, it judges every image, which takes a
    forward pass of those that were trained or selected on and look least like the others.

    Args:
        layout: where dataset and embeddings are.
        main: the main model.
        probe: directory of the probe's bundle.
        answers: of the main model, by the file of each evaluated image, as in the manifest.
        progress: called with a line for each stage.

    Raises:
        DatasetError: there is no dataset, or one of its images cannot be read.
    """
    images = dataset.manifest(layout.processed).query("kept")
    images = images.sort_values("file", ignore_index=True)
    learned = images["split"].isin(_LEARNED).to_numpy()
    patients = images[learned].groupby("class")["patient"].nunique()
    if len(patients) < 2 or patients.min() < suspects.FOLDS:
        return Audited(
            NoAudit(reason=f"needs two classes with {suspects.FOLDS} patients each to train on")
        )
    classes = main.record.classes
    backbone = AutoModelForImageClassification.from_pretrained(probe).dinov2
    embeddings = embed(backbone, layout, images, progress).numpy()
    probabilities = _judge(images, learned, embeddings, classes, answers)
    size = dataset.DatasetRecord.read(layout.processed).image_size
    pairs = leakage.similar(layout.processed, images, size, within_splits=True)
    reasons = _reasons(images, learned, layout, main, answers)
    table = _tabulate(
        images, classes, probabilities, learned, suspects.strangeness(embeddings), pairs, reasons
    )
    agreement = (probabilities.argmax(axis=1) == _targets(images, classes)).mean()
    summary = LabelAudit(
        images=len(images),
        agreement=round(float(agreement), 6),
        counts=_count(table, classes, ISSUES if main.gate else ISSUES[:-1]),
    )
    progress(f"label audit: {suspicions(summary)}")
    return Audited(summary, table)


def _judge(
    images: pd.DataFrame,
    learned: npt.NDArray[np.bool_],
    embeddings: npt.NDArray[np.float32],
    classes: Sequence[str],
    answers: Mapping[str, Answered],
) -> suspects.Numbers:
    """Probabilities [N, C] of models that were not trained on the image."""
    targets = _targets(images, classes)
    present = np.unique(targets[learned])
    probabilities = np.zeros((len(images), len(classes)))
    probabilities[np.ix_(learned, present)] = suspects.out_of_fold(
        embeddings[learned], targets[learned], images.loc[learned, "patient"]
    )
    probabilities[~learned] = np.stack(
        [answers[file].probabilities for file in images.loc[~learned, "file"]]
    )
    return probabilities


def _reasons(
    images: pd.DataFrame,
    learned: npt.NDArray[np.bool_],
    layout: Layout,
    main: Predictor,
    answers: Mapping[str, Answered],
) -> list[str]:
    """Reasons for which the gate rejects each image, joined; empty where it does not."""
    if main.gate is None:
        return [""] * len(images)
    verdicts = {file: answered.verdict for file, answered in answers.items()}
    rows = images[learned]
    verdicts.update(zip(rows["file"], rejection.learned(main, layout.processed, rows), strict=True))
    found = (verdicts[file] for file in images["file"])
    return [verdict.listed if verdict else "" for verdict in found]


def _targets(images: pd.DataFrame, classes: Sequence[str]) -> npt.NDArray[np.int64]:
    return np.array([classes.index(label) for label in images["class"]], dtype=np.int64)


def _tabulate(
    images: pd.DataFrame,
    classes: Sequence[str],
    probabilities: suspects.Numbers,
    learned: npt.NDArray[np.bool_],
    strangeness: tuple[suspects.Numbers, npt.NDArray[np.bool_]],
    pairs: Sequence[tuple[int, int, float]],
    reasons: Sequence[str],
) -> pd.DataFrame:
    """One row per suspicious image: in a table of corrections, the later row of two would win."""
    targets = _targets(images, classes)
    wrong = np.zeros(len(images), dtype=bool)
    for part in (learned, ~learned):  # judged by another model each
        wrong[part] = suspects.likely_errors(probabilities[part], targets[part])
    likeness, other = np.zeros(len(images)), np.full(len(images), -1)
    for first, second, similarity in pairs:
        for one, its_other in ((first, second), (second, first)):
            if similarity > likeness[one]:
                likeness[one], other[one] = similarity, its_other
    strange, outlying = strangeness
    rejected = np.array(reasons) != ""
    found = np.stack([wrong, outlying, other >= 0, rejected])
    scores = np.stack([suspects.doubts(probabilities, targets), strange, likeness, rejected])

    names, labels = np.array(classes), images["class"].to_numpy()
    suggested = np.where(wrong, names[probabilities.argmax(axis=1)], "")
    conflicting = (other >= 0) & ~wrong & (labels != labels[other])
    suggested[conflicting] = labels[other[conflicting]]
    table = images[["source", "path", "split", "sha256", "file"]].assign(
        given=labels,
        label=labels,
        suggested=suggested,
        rank=found.argmax(axis=0),
        issue=["+".join(np.array(ISSUES)[issues]) for issues in found.T],
        reasons=reasons,
        score=np.round(scores[found.argmax(axis=0), np.arange(len(images))], 4),
        other=np.where(other >= 0, images["path"].to_numpy()[other], ""),
        other_sha256=np.where(other >= 0, images["sha256"].to_numpy()[other], ""),
        other_file=np.where(other >= 0, images["file"].to_numpy()[other], ""),
        # Of a pair, one stands below the other.
        pair=np.where(other >= 0, np.minimum(other, np.arange(len(images))), 0),
    )
    table = table[found.any(axis=0)]
    return table.sort_values(
        ["rank", "score", "pair", "file"], ascending=[True, False, True, True], ignore_index=True
    )[[*COLUMNS, "file", "other_file"]]


def having(table: pd.DataFrame, issue: str) -> pd.DataFrame:
    """The rows of a table of an audit that have an issue, alone or with others."""
    return table[table["issue"].str.split("+").map(lambda issues: issue in issues)]


def _count(
    table: pd.DataFrame, classes: Sequence[str], issues: Sequence[str]
) -> dict[str, dict[str, int]]:
    """Suspicious images by issue and given class; one with two issues counts for both."""
    counts = {}
    for issue in issues:
        number = having(table, issue)["given"].value_counts()
        counts[issue] = {label: int(number.get(label, 0)) for label in classes}
    return counts
