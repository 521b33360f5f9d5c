"""Where the images come from and how they are prepared: the group ``data`` of an experiment."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from cxr_assets.groups import Fraction, Group, Seed
from cxr_serving.model.places import Place

Kind = Literal["kaggle", "folder", "table", "synthetic"]
# Of a source, and of the short form of a list of one, whose name is its kind.
SourceName = Annotated[str, Field(pattern=r"^[a-z0-9][_a-z0-9-]{0,31}$")]
Dataset = Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+(/versions/\d+)?$")]
Column = Annotated[str, Field(min_length=1, max_length=200)]

# Of each class, one for each of train, val and test.
_MIN_SYNTHETIC_PATIENTS = 3
_NEEDED = {"kaggle": "dataset", "folder": "folder", "table": "table"}


def _as_text(labels: Any) -> Any:
    """Words that are numbers, or that YAML reads as such a value, as they are written."""
    if not isinstance(labels, dict):
        return labels
    return {"null" if word is None else str(word): label for word, label in labels.items()}


class Columns(Group):
    """The names of a table's columns; only the first three have to exist.

    Attributes:
        path: of the image: absolute, or relative to the table.
        label: what the image shows, see :attr:`Source.labels`.
        patient: pseudonym of the patient.
        split: ``train``, ``val`` or ``test``; empty where it is to be drawn.
        site: hospital or department.
        acquired: date of the image, ``YYYY-MM-DD`` or ``YYYYMMDD``.
        view: projection, such as ``PA``; only frontal images are used.
        sex: of the patient.
        age: of the patient, in years.
    """

    path: Column = "path"
    label: Column = "label"
    patient: Column = "patient"
    split: Column = "split"
    site: Column = "site"
    acquired: Column = "acquired"
    view: Column = "view"
    sex: Column = "sex"
    age: Column = "age"


class Source(Group):
    """One source of images.

    Attributes:
        name: of the source; patients of two sources are different patients.
        source: ``kaggle``, ``folder``, ``table`` or ``synthetic``.
        folder: for ``folder``: with ``train/`` and ``test/``; it is never written to.
        dataset: for ``kaggle``: owner and name of the data set.
        synthetic_patients: for ``synthetic``: patients per class.
        table: for ``table``: a CSV or Parquet file with one row per image, or a folder of such.
        columns: for ``table``: the names of its columns.
        labels: class by the source's own word for it; null for a word that is left out. A word
            that is the name of a class needs no entry.
        use: ``all``, or ``train`` or ``test`` alone. Images of a source for ``test`` alone are
            reported apart.
    """

    name: SourceName
    source: Kind
    folder: Place | None = None
    dataset: Dataset | None = None
    synthetic_patients: Annotated[int, Field(ge=0, le=100_000)] = 0
    table: Place | None = None
    columns: Columns = Columns()
    labels: dict[str, str | None] = Field(default_factory=dict)
    use: Literal["all", "train", "test"] = "all"

    def setting(self, key: str) -> str:
        """How a message names a setting: the short form's source has the name of its kind."""
        short = self.name == self.source
        return f"data.{key}" if short else f"{key} of the source {self.name} in data.sources"

    @field_validator("labels", mode="before")
    @classmethod
    def _words_are_text(cls, labels: Any) -> Any:
        return _as_text(labels)

    @field_validator("name")
    @classmethod
    def _not_reserved(cls, name: str) -> str:
        if name == "unknown":
            raise ValueError("the name is reserved for unknown patients")
        return name

    @model_validator(mode="after")
    def _place_is_given(self) -> "Source":
        key = _NEEDED.get(self.source)
        if key is not None and getattr(self, key) in (None, Path()):
            raise ValueError(f"source {self.source} needs a {key}: set {self.setting(key)}")
        if self.source == "synthetic" and self.synthetic_patients < _MIN_SYNTHETIC_PATIENTS:
            raise ValueError(
                f"data.synthetic_patients={self.synthetic_patients} leaves a split empty: "
                f"it must be at least {_MIN_SYNTHETIC_PATIENTS}"
            )
        return self


class Data(Group):
    """Where the images come from and how they are prepared.

    Attributes:
        source, folder, dataset, synthetic_patients, table, columns, labels: the only source, see
            :class:`Source`; its name is its kind.
        sources: several sources; ``source`` is null then.
        corrections: a CSV or Parquet file with corrected labels, if any.
        image_size: side of the square input, in pixels.
        val_fraction: share of the patients drawn for validation, of those without a given split.
        test_fraction: share of the patients drawn for test, of sources without given splits.
        seed: for the draw of these patients and for synthetic images. It is separate from the
            training's ``seed``, so that trainings with different seeds share dataset and split.
        max_corrupt_fraction: share of unreadable or missing images above which preparation fails.
        max_removed_fraction: share of a source's images in the last dataset above which preparation
            fails if they are gone: its table or folder may be incomplete.
        unknown_patients: for images without a known patient: ``exclude`` leaves them out,
            ``own`` counts each as one patient, so that leakage cannot be excluded.
        in_memory_limit: bytes that the images of train and val may take in memory; a larger dataset
            is read from disk batch by batch, with the same result.
    """

    source: Kind | None
    folder: Place | None
    dataset: Dataset | None
    synthetic_patients: Annotated[int, Field(ge=0, le=100_000)]
    table: Place | None
    columns: Columns
    labels: dict[str, str | None]
    sources: tuple[Source, ...]
    corrections: Place | None
    image_size: Annotated[int, Field(ge=32, le=1024)]
    # With two patients, the minimum per class, a larger share would leave none to train on.
    val_fraction: Annotated[float, Field(gt=0, le=0.5)]
    test_fraction: Annotated[float, Field(gt=0, le=0.5)]
    seed: Seed
    max_corrupt_fraction: Fraction
    max_removed_fraction: Annotated[float, Field(ge=0, le=1)]
    unknown_patients: Literal["exclude", "own"]
    in_memory_limit: Annotated[int, Field(ge=0, lt=2**63)]

    @field_validator("labels", mode="before")
    @classmethod
    def _words_are_text(cls, labels: Any) -> Any:
        return _as_text(labels)

    @model_validator(mode="after")
    def _sources_are_clear(self) -> "Data":
        if (self.source is None) != bool(self.sources):
            raise ValueError(
                "set either data.source (kaggle, folder, table or synthetic) or data.sources: "
                "for several sources, data=sources data.sources=[...]"
            )
        # Otherwise somebody would wait for the images of a table and get others.
        for key, kind in (("folder", "folder"), ("table", "table")):
            if getattr(self, key) is not None and self.source != kind:
                raise ValueError(f"data.{key} is set, but not read: {self._instead(key)}")
        for key, unset in (("columns", Columns()), ("labels", {})):
            if self.source is None and getattr(self, key) != unset:
                raise ValueError(f"data.{key} is set, but not read: {self._instead(key)}")
        names = [source.name for source in self.listed]
        if repeated := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"data.sources has two sources named {', '.join(sorted(repeated))}")
        if all(source.use == "test" for source in self.listed):
            raise ValueError("every source in data.sources is for test alone: none to train on")
        return self

    def _instead(self, key: str) -> str:
        if self.source is None:
            return f"set {key} of a source in data.sources, as [{{name: a, {key}: ...}}]"
        return f"data.source is {self.source}. Set data={key}, too, or leave data.{key} away"

    @property
    def listed(self) -> tuple[Source, ...]:
        """All sources; the short form is a list of one."""
        if self.source is None:
            return self.sources
        shared = Source.model_fields.keys() & Data.model_fields.keys()
        return (Source(name=self.source, **{key: getattr(self, key) for key in shared}),)

    def without_places(self) -> "Data":
        """The same without folders and tables of this machine: their names may name people."""
        paths = dict.fromkeys(("folder", "table", "corrections"))
        return self.model_copy(
            update={
                **paths,
                "sources": tuple(
                    source.model_copy(update={"folder": None, "table": None})
                    for source in self.sources
                ),
            }
        )
