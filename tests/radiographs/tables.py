"""A small table of images, and the source that it is."""

from pathlib import Path

import numpy as np
from PIL import Image

from cxr_assets.sources import Columns, Source

HEADER = "path,label,patient,split,site,acquired,view,sex,age"
# One per class and split, by their words.
ROWS = (
    "images/a.png,Viral,p1,train,north,2024-03-04,PA,F,034Y",
    "images/b.png,normal,p2,train,north,20240305,AP,m,7",
    "images/c.png,Bacterial,p3,train,south,2024-03-06T10:11:12,,,",
    "images/d.png,viral,p4,test,south,,frontal,,",
    "images/e.png,NORMAL,p5,test,south,,,,",
    "images/f.png,bacterial,p6,test,south,,,,",
)
LABELS: dict[str, str | None] = {
    "Viral": "viral_pneumonia",
    "bacterial": "bacterial_pneumonia",
    "rotated": None,
}


def write(folder: Path, *rows: str, header: str = HEADER, seed: int = 0) -> Path:
    """``labels.csv`` with ``rows``, and an image for each of ``ROWS``, other ones by ``seed``."""
    for number, row in enumerate(ROWS, 100 * seed):
        path = folder / row.split(",")[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            grey = np.random.default_rng(number).integers(0, 255, (30, 40), dtype=np.uint8)
            Image.fromarray(grey).save(path)
    table = folder / "labels.csv"
    table.write_text("\n".join((header, *rows)) + "\n")
    return table


def source(table: Path, **settings: object) -> Source:
    given = {"name": "table", "source": "table", "table": table, "labels": LABELS} | settings
    return Source.model_validate({"columns": Columns(), **given})
