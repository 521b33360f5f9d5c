import pandas as pd

from cxr_assets.defs.assets import tables
from cxr_assets.radiographs import withdrawal


def test_rejected_images_are_counted_by_source_and_reasons() -> None:
    rows = [("north", f"{name}.png", "inverted;colour") for name in "abcd"]
    rows.append(("south", "e.png", "rotated_90"))
    images = pd.DataFrame(rows, columns=["source", "path", "reasons"])
    assert tables.rejected(images).to_numpy().tolist() == [
        ["north", "inverted;colour", 4, "a.png; b.png; c.png"],
        ["south", "rotated_90", 1, "e.png"],
    ]


def test_the_event_log_gets_no_name_of_a_patient_who_withdrew_consent() -> None:
    rows = {
        "source": "table",
        "path": ["a.png", "b.png", "c.png"],
        "problem": [withdrawal.WITHDRAWN, withdrawal.WITHDRAWN, "missing: no such file"],
    }
    skipped = tables.skipped(pd.DataFrame(rows)).set_index("reason")
    assert skipped.loc["withdrawn", ["rows", "examples"]].tolist() == [2, ""]
    assert skipped.loc["missing", "examples"] == "c.png: no such file"
