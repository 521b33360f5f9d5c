"""Four weeks of a hospital in one command, as a schedule would run them.

Its archive exports DICOM and PNG with a table, in which one label of thirty is wrong:

1. The first model.
2. A week of new patients.
3. Another week. The label audit's list has been corrected, and a patient has withdrawn consent.
4. No new image. A challenger that was hardly trained is held. A person releases it nevertheless,
   for a rehearsal, and returns to the model before it.

Look at the result in the Dagster UI and in the reports::

    python -m benchmarks.weeks --root build/weeks
    CXR_DATA_ROOT=build/weeks/data make dev
"""

import argparse
import os
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks import archive
from cxr_assets import decisions
from cxr_assets.decisions import Decision
from cxr_assets.evaluation.audit import AUDIT_FILE
from cxr_assets.evaluation.wording import score
from cxr_assets.layout import PAGE_FILE, Layout
from cxr_assets.radiographs import changes, synthesis
from cxr_serving.model import store
from cxr_serving.model.report import Report

_PATIENTS = 120
_WRONG = 30
# So that the synthetic images are learnt within a minute.
_SYNTHETIC = (
    *("data.image_size=64", "data.test_fraction=0.25", "trainer.max_epochs=9"),
    *("trainer.batch_size=16", "trainer.ema_decay=0.9", "trainer.augmentation.affine=0.3"),
    *("trainer.augmentation.exposure=0.3", "trainer.augmentation.detail=0"),
    # With some hundred test images chance alone costs more than the rule allows by default.
    *("release.rule.non_inferiority=0.2", "release.rule.class_loss=0.2"),
    *("release.rule.site_loss=0.2", "release.rule.calibration_error=0.2"),
)
_HARDLY = ("trainer.max_epochs=1", "seed=1")
_BECAUSE = ("a rehearsal: the service has to follow a person", "the rehearsal is over")


def main() -> None:
    """Run the weeks, and print what each of them changed and what was decided."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path("build/weeks"), help="a new folder")
    parser.add_argument("--images", type=Path, help="in Kaggle's layout; else synthetic ones")
    parser.add_argument("overrides", nargs="*", help="of the experiment, such as data.seed=1")
    arguments = parser.parse_args()
    root: Path = arguments.root.resolve()
    if root.exists():
        sys.exit(f"{root} exists: delete it, or name a new folder with --root")
    images: Path | None = arguments.images
    synthetic = () if images else _SYNTHETIC
    if images is None:
        images = root / "synthetic"
        synthesis.make(images, _PATIENTS, seed=0)
    truth = archive.export(images, root / "archive")
    hospital = Hospital(root, mislabel(truth), (*synthetic, *arguments.overrides))

    hospital.week(1)
    hospital.week(2)
    hospital.correct(truth)
    hospital.forget()
    hospital.week(3)
    released = store.read_pointer(hospital.layout.releases)
    held = hospital.week(3, *_HARDLY)
    for version, because in zip((held.version, released), _BECAUSE, strict=True):
        if version not in (None, store.read_pointer(hospital.layout.releases)):
            hospital.run("cxr", "release", "promote", version, "--because", because)
            print(f"{version} {decisions.history(hospital.layout)[-1].summary}")
    print(f"\nLook at it: CXR_DATA_ROOT={hospital.layout.root} make dev")
    print(f"            {hospital.layout.reports / PAGE_FILE}")


def mislabel(truth: pd.DataFrame) -> pd.DataFrame:
    """The same table with another finding in one row of thirty."""
    table = truth.copy()
    words = list(archive.WORDS)
    rng = np.random.default_rng(0)
    for row in rng.choice(len(table), len(table) // _WRONG, replace=False):
        others = [word for word in words if word != table.at[row, "finding"]]
        table.at[row, "finding"] = rng.choice(others)
    return table


class Hospital:
    """A growing table, and the pipeline that runs on it every week.

    Args:
        root: folder with ``archive/``; the data root with Dagster's records goes there.
        table: what the archive exports in the end.
        overrides: of the experiment.
    """

    def __init__(self, root: Path, table: pd.DataFrame, overrides: tuple[str, ...]) -> None:
        self.layout = Layout(root / "data")
        self._table = table
        self._dataset: str | None = None
        self._file = root / "archive" / "labels.csv"
        self._overrides = [
            "data=table",
            f"data.table='{self._file}'",
            *(f"data.columns.{name}={column}" for name, column in archive.COLUMNS.items()),
            *(f"data.labels.{word}={label}" for word, label in archive.WORDS.items()),
            *overrides,
        ]
        home = self.layout.root / "dagster"
        home.mkdir(parents=True)
        (home / "dagster.yaml").symlink_to(Path("dagster.yaml").resolve())
        self._environment = os.environ | {
            "CXR_DATA_ROOT": str(self.layout.root),
            "DAGSTER_HOME": str(home),
            "CXR_EXPERIMENT": "scratch",
        }

    def week(self, number: int, *overrides: str) -> Decision:
        """Export the table as it is in a week, run the job, and print what came of it."""
        day = archive.SUNDAY + timedelta(weeks=number - 1)
        table = self._table[self._table["date"] < day.isoformat()]
        # As Excel writes it where the comma is the decimal mark.
        table.to_csv(self._file, index=False, sep=";", encoding="utf-8-sig")
        print(f"\n== {day:%A, %d %B %Y} {' '.join(overrides)}", flush=True)
        self._environment["CXR_OVERRIDES"] = " ".join([*self._overrides, *overrides])
        started = time.monotonic()
        job = ("job", "execute", "-m", "cxr_assets.definitions", "-j", "retrain")
        self.run("dagster", *job)
        report = Report.read(self.layout.reports)
        decision = decisions.history(self.layout)[-1]
        assert report.dataset is not None
        version, self._dataset = self._dataset, report.dataset.data_version
        same = version == self._dataset
        print("No new image." if same else changes.sentence(report.changes))
        for part in report.models:
            print(f"{part.model.asset}: macro F1 {score(part.macro_f1, part.intervals.macro_f1)}")
        print(f"{decision.version} {decision.summary}")
        for clause in decision.failed:
            print(f"  {clause.name}: {clause.text}")
        print(f"({time.monotonic() - started:.0f} s)", flush=True)
        return decision

    def correct(self, truth: pd.DataFrame) -> None:
        """Correct the labels that the audit of the last report finds in doubt, where wrong."""
        report = self.layout.reports / str(store.read_pointer(self.layout.reports))
        listed = pd.read_csv(report / AUDIT_FILE).set_index("path")
        right = truth.set_index("file")["finding"].map(archive.WORDS)
        listed["label"] = right.reindex(listed.index)
        found = listed[listed["label"] != listed["given"]]
        path = self._file.with_name("corrections.csv")
        found.to_csv(path)
        self._overrides.append(f"data.corrections='{path}'")
        wrong = int((self._table["finding"] != truth["finding"]).sum())
        print(
            f"The audit lists {len(listed)} images, {len(found)} of the {wrong} with a wrong label:"
            f" corrected in {path}"
        )

    def forget(self) -> None:
        """The first patient withdraws consent; the images leave the dataset at once."""
        self.run("cxr", "data", "forget", self._table["pseudonym"].iloc[0])
        print(f"{self._table['pseudonym'].iloc[0]} has withdrawn consent: cxr data forget")

    def run(self, program: str, *arguments: str) -> None:
        """Run a program of the pipeline; exit where it fails."""
        log = self.layout.root / "weeks.log"
        with log.open("a") as file:
            done = subprocess.run(
                [Path(sys.executable).parent / program, *arguments],
                env=self._environment,
                stdout=file,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if done.returncode:
            sys.exit(f"{program} {' '.join(arguments)} failed: see {log}")


if __name__ == "__main__":
    main()
