import pandas as pd

from cxr_assets.defs.assets import tables
from cxr_assets.radiographs import withdrawal


def test_the_event_log_gets_no_name_of_a_patient_who_withdrew_consent() -> None:
    rows = {
        "source": "table",
        "path": ["a.png", "b.png", "c.png"],
        "problem": [withdrawal.WITHDRAWN, withdrawal.WITHDRAWN, "missing: no such file"],
    }
    skipped = tables.skipped(pd.DataFrame(rows)).set_index("reason")
    assert skipped.loc["withdrawn", ["rows", "examples"]].tolist() == [2, ""]
    assert skipped.loc["missing", "examples"] == "c.png: no such file"
