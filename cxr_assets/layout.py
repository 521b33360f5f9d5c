"""The disk layout below the data root: the one place that knows where things lie."""

import re
from dataclasses import dataclass
from pathlib import Path

from cxr_serving.model import store
from cxr_serving.model.bundle import POINTER_FILE, VERSION
from cxr_serving.model.report import METRICS_FILE

# The page of a report; that at the top of the reports is a copy of the newest one.
PAGE_FILE = "report.html"

# What a data root in a bucket holds, by path below the root.
_PLACE = r"(models/[a-z][a-z0-9_]*|reports|releases)"
SHARED_DIRECTORY = re.compile(rf"{_PLACE}/{VERSION.pattern}")
SHARED_FILE = re.compile(
    rf"{_PLACE}/{re.escape(POINTER_FILE)}|reports/({re.escape(METRICS_FILE)}|{re.escape(PAGE_FILE)})"
    rf"|decisions/[0-9TZ]+-{VERSION.pattern}\.json|withdrawn\.csv"
)


@dataclass(frozen=True)
class Layout:
    """Places below one data root.

    Attributes:
        root: the data root (``CXR_DATA_ROOT``), or the folder of its local copy.
        url: of the bucket, where the data root is in one.
    """

    root: Path
    url: str | None = None

    @property
    def raw(self) -> Path:
        """Downloads, synthetic images and the inventory of the raw images."""
        return self.root / "raw"

    @property
    def raw_lock(self) -> Path:
        """Lock held while images are collected."""
        return self.raw / ".lock"

    @property
    def screened(self) -> Path:
        """Page of the new raw images that the gate of the newest model rejects, if any."""
        return self.raw / "rejected.html"

    @property
    def checks(self) -> Path:
        """Pages about tables that were checked."""
        return self.root / "checks"

    @property
    def processed_lock(self) -> Path:
        """Lock held while the processed dataset changes."""
        return self.root / ".processed.lock"

    @property
    def processed(self) -> Path:
        """The processed dataset: ``{train,val,test}/{class}/*.png``, manifest and dataset.json."""
        return self.root / "processed"

    @property
    def withdrawn(self) -> Path:
        """CSV of the patients who withdrew their consent; while it exists, they stay out."""
        return self.root / "withdrawn.csv"

    @property
    def embeddings(self) -> Path:
        """``<key>.safetensors`` for each backbone: embeddings of images, which the probe reuses."""
        return self.root / "embeddings"

    @property
    def embeddings_lock(self) -> Path:
        """Lock held while embeddings change."""
        return self.embeddings / ".lock"

    @property
    def reports(self) -> Path:
        """``<version>/`` for each report; ``metrics.json`` at the top is the newest one's."""
        return self.root / "reports"

    @property
    def metrics(self) -> Path:
        """``<version>.json`` for each report, its metrics alone, which the service reads."""
        return store.metrics_directory(self.root)

    @property
    def reports_lock(self) -> Path:
        """Lock held while reports and their metrics change."""
        return self.root / ".reports.lock"

    @property
    def releases_lock(self) -> Path:
        """Lock held while a release is written."""
        return self.root / ".releases.lock"

    @property
    def releases(self) -> Path:
        """``<version>/`` for each release, and ``latest.json``."""
        return store.releases_directory(self.root)

    @property
    def decisions(self) -> Path:
        """``<time>-<version>.json`` for each decision on a release; never deleted."""
        return self.root / "decisions"

    def models(self, asset: str) -> Path:
        """``<version>/`` for each bundle of a model asset, and ``latest.json``."""
        return store.asset_directory(self.root, asset)

    def published(self) -> list[Path]:
        """Every bundle and release, the newest first."""
        places = [*self.models("").glob("*"), self.releases]
        found = (place / version for place in places for version in store.versions(place))
        return sorted(found, key=lambda directory: directory.name, reverse=True)

    def work(self, fingerprint: str) -> Path:
        """Scratch folder of one training: what a crashed run resumes from."""
        return self.root / "work" / fingerprint[:16]

    @property
    def jobs(self) -> Path:
        """What steps and their jobs on a cluster write for each other, while these run."""
        return self.root / "jobs"

    @property
    def exchanged(self) -> Path:
        """Which objects of a bucket the local copy agrees with."""
        return self.root / "exchanged.json"

    @property
    def exchange_lock(self) -> Path:
        """Lock held while the local copy of a bucket is brought up to date, or left there."""
        return self.root / ".exchange.lock"

    @property
    def set_aside(self) -> Path:
        """What was in the way of something new and holds files of someone else."""
        return self.root / "set-aside"

    @property
    def sweeps(self) -> Path:
        """Tables of sweeps and ablations."""
        return self.root / "sweeps"

    @property
    def mlflow_database(self) -> Path:
        """SQLite file of the default MLflow store."""
        return self.root / "mlflow" / "mlflow.db"

    @property
    def mlflow_artifacts(self) -> Path:
        """Artifacts of the default MLflow store."""
        return self.root / "mlflow" / "artifacts"

    @property
    def mlflow_running(self) -> Path:
        """Locks of the MLflow runs that are under way, whatever store they are in."""
        return self.root / "mlflow" / "running"
