"""The model card: what the model is, for what, how good, and how to use and repeat it."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from cxr_assets.experiment import Experiment, compose
from cxr_assets.overrides import PATHS, join
from cxr_assets.radiographs.dataset import DatasetRecord
from cxr_assets.radiographs.leakage import SIMILAR
from cxr_assets.release.rights import KERMANY, base_model, licence, terms
from cxr_serving.model.bundle import BundleRecord

CARD_FILE = "README.md"
SAMPLES_FILE = "samples.png"

_TEMPLATE = Path(__file__).with_name("card.md")
_PLACEHOLDER = "/path/to/your/copy"

_SYNTHETIC = (
    "Made from synthetic images: this model has never seen a radiograph of a patient, and its "
    "metrics say nothing about patients."
)
_RANDOM = "Trained from random weights, not pretrained: expect less than of a fine-tuned model."
_FINE_TUNED = "A research model, fine-tuned from weights that were made for other images."

_HUB_DATA = "hf-vision/chest-xray-pneumonia"  # the images of Kaggle, on the Hub
DATA = {
    "synthetic": (
        "Synthetic images, in the layout of the Kermany data set. The classes differ by "
        "rules of drawing, not by disease."
    ),
    "kaggle": (
        "Anterior-posterior chest radiographs of children of one to five years from Guangzhou "
        f"Women and Children's Medical Center: {KERMANY}. Fetched from Kaggle."
    ),
    "folder": (
        "Chest radiographs from a folder of the operator's, in the layout of the Kermany data set. "
        "The program that wrote this card cannot know where they come from: whoever publishes the "
        f"release must say so, and hold the right to. Where they are Kermany's: {KERMANY}."
    ),
}

_POPULATION = {
    "synthetic": "none; the images are drawn by a computer.",
    "kaggle": (
        "children of one to five years who were X-rayed in routine care at one hospital in "
        "Guangzhou, China. Sex, exact age and severity are not known."
    ),
    "folder": (
        "the operator's; the program that wrote this card knows nothing of it, and whoever "
        "publishes the release must say. Other ages, devices and places are out of scope."
    ),
}

_LIMITS_SYNTHETIC = "A demonstration of the pipeline. Its answers about real images mean nothing."
_LIMITS_REAL = (
    "Training and test images come from one source: the metrics say nothing about other hospitals, "
    "devices or ages, and nobody has evaluated the model elsewhere. In the Kermany data set the "
    "width and height of an image alone go far to separate the classes; resizing to one square "
    "hides them, but exposure, collimation and burnt-in marks can still serve as shortcuts. Labels "
    "are readings of the images, and bacterial and viral pneumonia look alike in many of them."
)


def title(experiment: Experiment) -> str:
    """What the release is called."""
    return f"{experiment.model.name} on chest radiographs"


def model_card(
    record: BundleRecord,
    metrics: dict[str, Any],
    data: DatasetRecord,
    experiment: Experiment,
    pictures: Sequence[str],
    repo: str | None,
) -> ModelCard:
    """Write the card of a release; every number in it comes from the arguments.

    Args:
        record: of the released bundle.
        metrics: contents of the report's ``metrics.json``.
        data: record of the processed dataset.
        experiment: the settings that the bundle was trained with.
        pictures: file names of the report's figures, in the order to show them.
        repo: Hub repository, if any.
    """
    source = experiment.data.source
    name = licence(record, source)
    card_data = ModelCardData(
        license=name,
        datasets=[_HUB_DATA] if source == "kaggle" else None,
        library_name="transformers",
        pipeline_tag="image-classification",
        base_model=base_model(record),
        tags=["chest-x-ray", "pneumonia", *(["synthetic"] if record.synthetic else [])],
        metrics=["f1", "accuracy", "roc_auc"],
        model_name=(repo or experiment.model.name).split("/")[-1],
        eval_results=_eval_results(record, metrics, source),
    )
    notice = _SYNTHETIC if record.synthetic else _FINE_TUNED if record.pretrained else _RANDOM
    card: ModelCard = ModelCard.from_template(
        card_data,
        template_path=str(_TEMPLATE),
        notice=notice,
        title=title(experiment),
        classes=", ".join(name.replace("_", " ") for name in record.classes),
        record=record,
        repo=repo,
        metrics=metrics,
        data=data,
        similar=SIMILAR,
        margin=f"{experiment.margin:g}",
        pictures=pictures,
        samples=SAMPLES_FILE,
        population=_POPULATION[source],
        overall_table=_overall_table(metrics),
        class_table=_class_table(metrics),
        difference=_score(
            metrics["comparison"]["macro_f1"]["estimate"],
            metrics["comparison"]["macro_f1"]["interval"],
        ),
        subgroup_table=_subgroup_table(metrics),
        calibration_table=_calibration_table(metrics),
        shortcut_table=_shortcut_table(metrics),
        count_table=_table(
            ["split", *record.classes],
            [
                [split, *(counts[c] for c in record.classes)]
                for split, counts in data.counts.items()
            ],
        ),
        identity_table=_table(
            ["what", "identity"],
            [
                ["data version", f"`{record.data_version}`"],
                ["code version", f"`{record.code_version}`"],
                ["fingerprint", f"`{record.fingerprint}`"],
                ["made at", record.created_at.isoformat(timespec="seconds")],
            ],
        ),
        data_text=DATA[source],
        limits=_LIMITS_SYNTHETIC if record.synthetic else _LIMITS_REAL,
        command=_command(experiment),
        licence_text=terms(name) + "\n",
    )
    return card


def _eval_results(record: BundleRecord, metrics: dict[str, Any], source: str) -> list[EvalResult]:
    name, kind = {
        "synthetic": ("synthetic images", "synthetic images"),
        "kaggle": ("Chest X-Ray Images (Pneumonia), Kermany et al.", "chest-xray-pneumonia"),
        "folder": ("Chest radiographs of the operator", "folder"),
    }[source]
    return [
        EvalResult(
            task_type="image-classification",
            dataset_name=name,
            dataset_type=kind,
            dataset_split="test",
            dataset_revision=record.data_version,
            metric_type=metric,
            metric_name=label,
            metric_value=metrics[key],
        )
        for key, metric, label in (
            ("macro_f1", "f1", "macro F1"),
            ("accuracy", "accuracy", "accuracy"),
            ("auroc_macro_ovr", "roc_auc", "macro AUROC, one versus rest"),
        )
        if metrics[key] is not None
    ]


def _overall_table(metrics: dict[str, Any]) -> str:
    baseline = metrics["baseline"]
    return _table(
        ["metric", metrics["model"]["asset"], f"{baseline['model']['asset']} (baseline)"],
        [
            [label, *(_score(one[key], one["intervals"][key]) for one in (metrics, baseline))]
            for key, label in (
                ("macro_f1", "macro F1"),
                ("accuracy", "accuracy"),
                ("auroc_macro_ovr", "macro AUROC, one versus rest"),
            )
        ],
    )


def _class_table(metrics: dict[str, Any]) -> str:
    rows = []
    for name in metrics["classes"]:
        row = metrics["classification_report"][name]
        between = metrics["intervals"]["classes"][name]
        scores = [_score(row[key], between[key]) for key in ("precision", "recall", "f1-score")]
        area = _score(metrics["auroc_ovr"][name], between["auroc"])
        rows.append([name, *scores, area, row["support"]])
    return _table(["class", "precision", "recall", "F1", "AUROC", "images"], rows)


def _subgroup_table(metrics: dict[str, Any]) -> str | None:
    rows = [
        [row["group"], row["subgroup"], _score(row["accuracy"], row["interval"]), row["images"]]
        for row in metrics["subgroups"]
    ]
    return _table(["images by", "part", "accuracy", "images"], rows) if rows else None


def _calibration_table(metrics: dict[str, Any]) -> str:
    before, after = (metrics["calibration"][kind] for kind in ("before", "after"))
    return _table(
        ["0 is best", "before temperature", "as served"],
        [
            [label, _score(before[key]), _score(after[key])]
            for key, label in (
                ("ece", "expected calibration error, adaptive bins"),
                ("brier", "Brier score, 0 to 2"),
                ("nll", "negative log-likelihood, nats"),
            )
        ],
    )


def _shortcut_table(metrics: dict[str, Any]) -> str:
    rows = []
    for key, label in (
        ("frame", "width and height of the image"),
        ("border", "its outermost sixteenth on each side"),
    ):
        audit = metrics["shortcuts"][key]
        if "reason" in audit:
            rows.append([label, f"not asked: {audit['reason']}", ""])
        else:
            rows.append([label, _score(audit["macro_f1"]), _score(audit["gain"])])
    return _table(["seen", "macro F1", "what the model gains over it"], rows)


def _score(value: float | None, interval: list[float] | None = None) -> str:
    if value is None:
        return "not defined"
    return f"{value:.3f}" + (f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else "")


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _command(experiment: Experiment) -> str:
    """The command that repeats the training, with the settings that differ from the preset's.

    Paths of the machine it ran on are not told.
    """
    folder = [f"data.folder={experiment.data.folder}"] if experiment.data.folder else []
    preset = dict(_settings(compose(experiment.preset, folder).model_dump(mode="json")))
    overrides = []
    for key, value in _settings(experiment.model_dump(mode="json")):
        if key in PATHS and value and (key == "data.folder" or Path(value).expanduser().is_dir()):
            overrides.append(f"{key}={_PLACEHOLDER}")
        elif value != preset[key]:
            text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
            overrides.append(f"{key}={text}")
    environment = f"CXR_EXPERIMENT={experiment.preset}"
    if overrides:
        # Within double quotes a shell still reads these four.
        quoted = re.sub(r'([\\"$`])', r"\\\1", join(overrides))
        environment += f' CXR_OVERRIDES="{quoted}"'
    return f"{environment} \\\n  dagster job execute -m cxr_assets.definitions -j retrain"


def _settings(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _settings(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
