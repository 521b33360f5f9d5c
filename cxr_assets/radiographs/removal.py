"""Takes images out of the processed dataset that is on disk, without making it again."""

import io
from collections import Counter
from collections.abc import Collection
from datetime import UTC, datetime

from cxr_assets import written
from cxr_assets.layout import Layout
from cxr_assets.provenance import fingerprint
from cxr_assets.radiographs import changes, dataset
from cxr_assets.radiographs.dataset import (
    DATASET_FILE,
    MANIFEST_FILE,
    DatasetRecord,
)
from cxr_assets.radiographs.naming import UNKNOWN
from cxr_assets.radiographs.withdrawal import WITHDRAWN


def remove(layout: Layout, images: Collection[str]) -> int:
    """Delete images from the processed dataset; the manifest lists them as withdrawn.

    The dataset gets another data version, so that nothing that was trained with the images is
    reused or released as if it belonged to it.

    Args:
        layout: where the dataset is; there may be none.
        images: sha256 of the source files, hexadecimal.

    Returns:
        How many images it held.

    Raises:
        DatasetError: its manifest or record is broken.
        OSError, ValidationError: it cannot be written; then it is as it was.
    """
    directory = layout.processed
    if not directory.exists():
        return 0
    before, table = DatasetRecord.read(directory), dataset.manifest(directory)
    removed = table["kept"] & table["sha256"].isin(images)
    if not removed.any():
        return 0
    files: dict[str, bytes | None] = dict.fromkeys(table.loc[removed, "file"])
    after = table.copy()
    after.loc[removed, ["kept", "reason", "file"]] = [False, WITHDRAWN, None]
    kept = after[after["kept"]]
    counts = {split: dict.fromkeys(before.classes, 0) for split in before.counts}
    for (split, label), number in kept.groupby(["split", "class"]).size().items():
        counts[split][label] = int(number)
    record = before.model_copy(
        update={
            "data_version": fingerprint(
                {"of": before.data_version, "without": sorted(table.loc[removed, "sha256"])}
            ),
            "counts": counts,
            "sources": dataset.by_split(kept, "source"),
            "sites": dataset.by_split(kept, "site"),
            "unknown_patients": int(kept["patient"].str.startswith(UNKNOWN).sum()),
            "skipped": dict(Counter(why.split(":")[0] for why in after["reason"].dropna())),
            "changes": changes.between(table, after, before.data_version, datetime.now(UTC).date()),
        }
    )
    content = io.BytesIO()
    after.to_parquet(content, index=False)
    files[MANIFEST_FILE] = content.getvalue()
    files[DATASET_FILE] = f"{record.model_dump_json(indent=2)}\n".encode()
    written.revise(directory, files)
    return int(removed.sum())
