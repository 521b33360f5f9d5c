"""``cxr data check``: what a table of images holds, before anybody trains."""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from cxr_assets.evaluation.templates import environment
from cxr_assets.experiment import ExperimentError, compose
from cxr_assets.overrides import split
from cxr_assets.progress import Progress
from cxr_assets.radiographs import listing, raw, withdrawal
from cxr_assets.radiographs.raw import RawDataError
from cxr_assets.radiographs.withdrawal import Withdrawal, WithdrawalError
from cxr_assets.sampling import evenly
from cxr_assets.settings import Settings, SettingsError, load
from cxr_assets.sources import Data
from cxr_serving.images.reader import ImageReader
from cxr_serving.model.atomic import write_file
from cxr_serving.model.explanation import data_url, png
from cxr_serving.model.preprocessing import ImageError, Preprocessing

# Sample images of each class; sizes of images that are listed.
_SAMPLES = 6
_SIZES = 6
# As the inventory writes it: "kind: reason (row 7)".
_PROBLEM = rf"(?s)(?P<kind>[^:]*): (?P<reason>.*?)(?:{listing.PLACE})?$"
# Reasons of each kind that are printed.
_EXAMPLES = 3
# Settings of the pipeline that concern any table; which table, the command says.
_SHARED = re.compile(r"classes=|data\.(columns|labels)\b")
_TO_BE_DRAWN = "to be drawn"
_NOT_STATED = "not stated"


@dataclass(frozen=True)
class Problem:
    """Rows that cannot be used for the same reason.

    Attributes:
        kind: such as ``missing`` or ``conflict``.
        reason: in words.
        rows: how many.
        first: path of the first one, and its number in a spreadsheet.
    """

    kind: str
    reason: str
    rows: int
    first: str


@dataclass(frozen=True)
class Findings:
    """What a table holds.

    Attributes:
        table: its path.
        root: folder that its paths are relative to.
        rows: of the inventory, see :data:`cxr_assets.radiographs.inventory.COLUMNS`.
        classes: of the experiment.
    """

    table: Path
    root: Path
    rows: pd.DataFrame
    classes: tuple[str, ...]

    @property
    def usable(self) -> pd.DataFrame:
        """The rows that can be used."""
        return self.rows[self.rows["problem"].isna()]

    @property
    def skipped(self) -> pd.DataFrame:
        """The rows that cannot be used."""
        return self.rows[self.rows["problem"].notna()]

    def counts(self) -> dict[str, pd.DataFrame]:
        """Images and patients of the usable rows, by title; columns that say nothing are left out.

        Each table has one row per value, and the columns ``images`` and ``patients``.
        """
        images = self.usable
        size = images["width"].astype(str) + " x " + images["height"].astype(str)
        common = size.value_counts().index[:_SIZES]
        groups = {
            "class": images["label"],
            "split": images["split"].fillna(_TO_BE_DRAWN),
            "site": images["site"],
            "view": images["view"],
            "sex": images["sex"],
            "year": images["acquired"].str[:4],
            "size in pixels": size.where(size.isin(common), f"{size.nunique() - _SIZES} others"),
            "bits per pixel": images["bits"].astype(str),
        }
        return {
            title: _count(images, values.fillna(_NOT_STATED))
            for title, values in groups.items()
            if values.notna().any()
        }

    def problems(self) -> dict[str, list[Problem]]:
        """Why rows cannot be used, by kind, each time the most frequent first."""
        parsed = self.skipped["problem"].str.extract(_PROBLEM)
        parsed["path"] = self.skipped["path"]
        counted = [
            Problem(str(kind), str(reason), len(rows), _first(rows.iloc[0]))
            for (kind, reason), rows in parsed.groupby(["kind", "reason"], sort=False)
        ]
        of_kind: dict[str, list[Problem]] = {}
        for problem in sorted(counted, key=lambda problem: -problem.rows):
            of_kind.setdefault(problem.kind, []).append(problem)
        return of_kind

    def warnings(self) -> list[str]:
        """What a run would leave out, warn about or fail on."""
        images, found = self.usable, []
        for name in self.classes:
            patients = images.loc[images["label"] == name, "patient"].nunique()
            if patients == 0:
                found.append(f"No image of the class {name}: a run needs some of each class.")
        if unknown := int(images["patient"].isna().sum()):
            found.append(
                f"Images without a patient: {unknown:,}. They are left out, or with "
                "data.unknown_patients=own each counts as one patient, and leakage between the "
                "splits cannot be excluded."
            )
        if copies := int(images.duplicated("sha256").sum()):
            found.append(f"Copies of other images, byte for byte: {copies:,}. Each counts once.")
        splits = images.dropna(subset=["patient", "split"]).groupby("patient")["split"].nunique()
        if divided := int((splits > 1).sum()):
            found.append(f"Patients in more than one split: {divided:,}. Each has to be in one.")
        return found


def check(
    table: Path,
    data: Data,
    classes: Sequence[str],
    withdrawn: Mapping[str, Withdrawal],
    progress: Progress,
) -> Findings:
    """List what a table holds. Of images only the headers are read.

    Args:
        table: a CSV or Parquet file, or a folder of such.
        data: settings with the names of its columns and the meaning of its labels.
        classes: of the experiment.
        withdrawn: the record of withdrawn patients, whose images a run leaves out, too.
        progress: called with a line per stage.

    Raises:
        RawDataError: the table cannot be read.
    """
    [source] = data.listed
    images = raw.check(source, classes, withdrawn, progress)
    return Findings(table, images.roots[source.name], images.inventory, tuple(classes))


def page(findings: Findings, size: int, lines: Sequence[str]) -> str:
    """One page with the counts and sample images of each class, as a network would see them.

    Args:
        findings: what the table holds.
        size: side of the square input of the network, in pixels.
        lines: warnings to show.
    """
    return (
        environment("cxr_assets")
        .get_template("checking.html.j2")
        .render(f=findings, warnings=lines, samples=_samples(findings, Preprocessing(size)))
    )


def _count(images: pd.DataFrame, values: "pd.Series[str]") -> pd.DataFrame:
    groups = images.groupby(values)
    counts = pd.DataFrame({"images": groups.size(), "patients": groups["patient"].nunique()})
    return counts.sort_values("images", ascending=False, kind="stable")


def _first(row: "pd.Series[Any]") -> str:
    number = f" (row {row['row']})" if isinstance(row["row"], str) else ""
    return f"{row['path'] or 'no path'}{number}"


def _samples(findings: Findings, preprocessing: Preprocessing) -> dict[str, list[dict[str, Any]]]:
    """Images spread over the rows of each class."""
    shown = {}
    with closing(ImageReader()) as reader:
        for name in findings.classes:
            rows = findings.usable[findings.usable["label"] == name]
            places = evenly(len(rows), _SAMPLES)
            shown[name] = [
                _shown(row, findings.root, reader, preprocessing)
                for row in rows.iloc[places].to_dict("records")
            ]
    return shown


def _shown(
    row: dict[Any, Any], root: Path, reader: ImageReader, preprocessing: Preprocessing
) -> dict[str, Any]:
    try:
        pixels = reader.read((root / row["path"]).read_bytes(), preprocessing).pixels
    except (OSError, ImageError) as error:
        return {**row, "image": None, "problem": str(error)}
    return {**row, "image": data_url(png(pixels))}


def main(table: Path, overrides: Sequence[str], csv: Path | None) -> None:
    """Print what a table holds and write its page; exit with 1 if no image can be used.

    Args:
        table: a CSV or Parquet file, or a folder of such.
        overrides: Hydra overrides, applied after those of ``CXR_OVERRIDES`` that concern tables.
        csv: file for all rows that cannot be used, if any.
    """
    progress = partial(print, file=sys.stderr, flush=True)
    try:
        settings = load()
        shared = _shared(settings, table)
        source = ["data=table", f"data.table={table}"]
        experiment = compose(settings.experiment, [*source, *shared, *overrides])
        found = check(
            table, experiment.data, experiment.classes, withdrawal.read(settings.layout), progress
        )
        warnings = found.warnings()
        place = settings.layout.checks / f"{table.stem}.html"
        place.parent.mkdir(parents=True, exist_ok=True)
        content = page(found, experiment.data.image_size, warnings)
        write_file(place, content.encode())
        if csv is not None:
            columns = ["path", "given_label", "patient", "problem"]
            write_file(csv, found.skipped[columns].to_csv(index=False).encode())
    except (SettingsError, ExperimentError, RawDataError, WithdrawalError) as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {error.filename} cannot be written: {error.strerror}")
    sys.stdout.write("\n".join([*_lines(found, warnings, place, csv), ""]))
    sys.exit(0 if len(found.usable) else 1)


def _shared(settings: Settings, table: Path) -> list[str]:
    """What the pipeline's settings say of any table, or of this one if it is one of several."""
    overrides = split(settings.overrides)
    shared = [text for text in overrides if _SHARED.match(text)]
    if any(text.startswith("data.sources=") for text in overrides):
        for source in compose(settings.experiment, overrides).data.sources:
            if source.table is not None and source.table.resolve() == table.resolve():
                shared += [f"data.columns.{name}={column}" for name, column in source.columns]
                shared += [
                    f"data.labels.{word}={label or 'null'}" for word, label in source.labels.items()
                ]
    return shared


def _lines(found: Findings, warnings: Sequence[str], page: Path, csv: Path | None) -> Iterator[str]:
    usable = found.usable
    yield (
        f"{found.table}: {len(found.rows):,} rows, {len(usable):,} usable images of "
        f"{usable['patient'].nunique():,} patients"
    )
    for title, counts in found.counts().items():
        width = max(len(title), *(len(str(value)) for value in counts.index))
        yield f"\n  {title:{width}}  {'images':>9}  {'patients':>9}"
        for value, images, patients in counts.itertuples():
            yield f"  {value:{width}}  {images:9,}  {patients:9,}"
    problems = found.problems()
    if problems:
        yield f"\nRows that cannot be used: {len(found.skipped):,}"
    for kind, reasons in problems.items():
        yield f"  {kind}: {sum(problem.rows for problem in reasons):,}"
        for problem in reasons[:_EXAMPLES]:
            yield f"    {problem.first}: {problem.reason}"
            if problem.rows > 1:
                yield f"      and {problem.rows - 1:,} more for the same reason"
        if len(reasons) > _EXAMPLES:
            others = sum(problem.rows for problem in reasons[_EXAMPLES:])
            yield f"    {others:,} more rows, for {len(reasons) - _EXAMPLES:,} other reasons"
    yield ""
    yield from warnings
    yield f"Page with sample images of patients: {page}"
    if csv is not None:
        yield f"All rows that cannot be used: {csv}"
    elif problems:
        yield "All rows that cannot be used: add --csv FILE"
