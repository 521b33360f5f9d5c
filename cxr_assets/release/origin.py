"""What a release says of its images, by the kinds of their sources and by the classes."""

from collections.abc import Collection

from cxr_assets.experiment import Experiment
from cxr_assets.release.rights import KERMANY

_UNKNOWN = (
    "The program that wrote this card does not know where they come from: whoever publishes the "
    "release must state it, and must have the right to publish."
)
_DATA = {
    "synthetic": (
        "Synthetic images, in the layout of the Kermany data set. The classes differ by "
        "how the images are generated, not by disease."
    ),
    "kaggle": (
        "Anterior-posterior chest radiographs of children of one to five years from Guangzhou "
        f"Women and Children's Medical Center: {KERMANY}. Fetched from Kaggle."
    ),
    "folder": (
        "Chest radiographs from a folder of the operator, in the layout of the Kermany data set. "
        f"{_UNKNOWN} If they are Kermany's: {KERMANY}."
    ),
    "table": f"Chest radiographs of the operator, listed in a table. {_UNKNOWN}",
}
_POPULATION_UNKNOWN = (
    "not known to the program that wrote this card; whoever publishes the release must state "
    "it. Other ages, devices and places are out of scope."
)
_POPULATION = {
    "synthetic": "none; the images are synthetic.",
    "kaggle": (
        "children of one to five years who were X-rayed in routine care at one hospital in "
        "Guangzhou, China. Sex, exact age and severity are not known."
    ),
    "folder": _POPULATION_UNKNOWN,
    "table": _POPULATION_UNKNOWN,
}
# Name and type, as the Hub's metadata spell them.
_NAMES = {
    "synthetic": ("synthetic images", "synthetic images"),
    "kaggle": ("Chest X-Ray Images (Pneumonia), Kermany et al.", "chest-xray-pneumonia"),
    "folder": ("Chest radiographs of the operator", "folder"),
    "table": ("Chest radiographs of the operator", "table"),
}

_LIMITS_SYNTHETIC = (
    "A demonstration of the pipeline. Its predictions on radiographs are meaningless."
)
_LIMITS = (
    "Training and test images come from the same {sources}: the metrics say nothing about other "
    "hospitals, devices or ages{but}. {size}; resizing to one square hides them, but exposure, "
    "collimation and burnt-in marks can still serve as shortcuts. {labels}"
)
_SIZE_KERMANY = (
    "In the Kermany data set the width and height of an image alone separate the classes well"
)
_SIZE = "The width and height of an image alone can separate classes"
_LABELS_KERMANY = "Labels come from readings of the images{alike}."
_LABELS = "How the labels were found is not known to the program that wrote this card{alike}."
_ALIKE = ", and bacterial and viral pneumonia look alike in many of them"
_PNEUMONIAS = {"bacterial_pneumonia", "viral_pneumonia"}


def kinds(experiment: Experiment) -> tuple[str, ...]:
    """The kinds of the experiment's sources, such as ``kaggle``, each once, sorted."""
    return tuple(sorted({source.source for source in experiment.data.listed}))


def data(kinds: Collection[str]) -> str:
    """What the images are, with their authors where they are known."""
    return "\n\n".join(_DATA[kind] for kind in kinds)


def population(kinds: Collection[str]) -> str:
    """Of which patients the images are, to follow a colon."""
    return " Also: ".join(dict.fromkeys(_POPULATION[kind] for kind in kinds))


def names(kinds: Collection[str]) -> tuple[str, str]:
    """Name and type of the data set, as the Hub's metadata spell them."""
    found = dict.fromkeys(_NAMES[kind] for kind in kinds)
    return ", ".join(dict.fromkeys(name for name, _ in found)), ", ".join(t for _, t in found)


def limits(experiment: Experiment, classes: Collection[str]) -> str:
    """What the metrics do not say, and what may have misled the model."""
    found = set(kinds(experiment))
    if found == {"synthetic"}:
        return _LIMITS_SYNTHETIC
    alike = _ALIKE if set(classes) >= _PNEUMONIAS else ""
    # A folder in Kermany's layout most likely holds Kermany's images.
    kermany = found <= {"kaggle", "folder"}
    external = [source.name for source in experiment.data.listed if source.use == "test"]
    return _LIMITS.format(
        sources="source" if len(experiment.data.listed) - len(external) == 1 else "sources",
        but=f", but for the external validation on {' and '.join(external)}" if external else "",
        size=_SIZE_KERMANY if found & {"kaggle", "folder"} else _SIZE,
        labels=(_LABELS_KERMANY if kermany else _LABELS).format(alike=alike),
    )
