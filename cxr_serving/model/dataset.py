"""What a report repeats of the record of the processed dataset."""

from datetime import date

from pydantic import BaseModel, ConfigDict


class Change(BaseModel):
    """Numbers of images that differ between two datasets.

    Attributes:
        added: only in the newer one.
        removed: only in the older one.
        relabelled: of another class than before.
        moved: in another split than before.
        replaced: with another content under the same path.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    added: int = 0
    removed: int = 0
    relabelled: int = 0
    moved: int = 0
    replaced: int = 0


class Changes(BaseModel):
    """What differs from the previous dataset.

    Attributes:
        made_on: when the newer dataset was made, in UTC.
        since: data version of the previous dataset.
        total: over all images.
        classes: by class; that of the newer dataset where an image is in both.
        sites: by site; images without a site are in none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    made_on: date
    since: str
    total: Change
    classes: dict[str, Change]
    sites: dict[str, Change]


class Draw(BaseModel):
    """How patients are drawn into splits: the same draw puts the same patient into the same one.

    Attributes:
        seed: of the draw.
        val_fraction, test_fraction: shares of the patients.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int
    val_fraction: float
    test_fraction: float


class Dataset(BaseModel):
    """What ``dataset.json`` says of a processed dataset; it names neither files nor patients.

    Attributes:
        data_version: sha256 over all that the dataset holds, hexadecimal.
        raw_data_version: of the images it was made from.
        classes: names of the classes, in index order.
        synthetic: whether the images are synthetic.
        image_size: side of the square images, in pixels.
        decoding: digest of the code that decoded the images, hexadecimal.
        val_fraction, test_fraction: shares of the patients that were drawn for val and test.
        seed: of the draw of these patients.
        counts: number of images by split and class.
        sources: number of images by source and split.
        sites: number of images by site and split; images without a site are in none.
        tables: names of the sources that are tables: their file names say nothing of a patient.
        unknown_patients: number of images without a known patient; each counts as one patient.
        skipped: number of images left out, by kind of reason; the manifest has every reason.
        changes: since the previous dataset; None where there was none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    data_version: str
    raw_data_version: str
    classes: tuple[str, ...]
    synthetic: bool
    image_size: int
    decoding: str
    val_fraction: float
    test_fraction: float
    seed: int
    counts: dict[str, dict[str, int]]
    sources: dict[str, dict[str, int]]
    sites: dict[str, dict[str, int]]
    tables: tuple[str, ...] = ()
    unknown_patients: int = 0
    skipped: dict[str, int]
    changes: Changes | None = None

    @property
    def draw(self) -> Draw:
        """How its patients were drawn."""
        return Draw.model_validate(self.model_dump(include=set(Draw.model_fields)))
