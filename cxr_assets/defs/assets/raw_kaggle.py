"""Asset ``raw_kaggle``: the source images, verified and listed."""

import dagster as dg
import pandas as pd

from cxr_assets.defs.assets import GROUP, OWNERS, WEEKLY
from cxr_assets.defs.resources import DataRoot, Experiment
from cxr_assets.radiographs import raw
from cxr_assets.radiographs.withdrawal import WITHDRAWN
from cxr_assets.tracking import Run

# Of each reason for which rows are skipped.
_EXAMPLES = 3


@dg.asset(
    group_name=GROUP,
    kinds={"kaggle", "jpeg"},
    owners=OWNERS,
    freshness_policy=WEEKLY,
    description=(
        "The source images: downloaded from Kaggle, read in place from a folder or as a table "
        "lists them, or synthetic. Checks every row, every image header and every hash. The data "
        "version is a hash of the content: it changes only when images or labels do."
    ),
)
def raw_kaggle(
    context: dg.AssetExecutionContext,
    experiment: Experiment,
    data_root: DataRoot,
    mlflow: dg.ResourceParam[Run],
) -> dg.MaterializeResult[None]:
    settings = experiment.resolve()
    settings.require_runnable()
    images = raw.collect(settings.data, settings.classes, data_root.layout, context.log.info)
    inventory = images.inventory
    named = inventory[inventory["problem"].isna()]
    return dg.MaterializeResult(
        metadata={
            "sources": {source.name: source.source for source in images.sources},
            "roots": {name: str(root) for name, root in images.roots.items()},
            "synthetic": images.synthetic,
            "unchanged": images.unchanged,
            "images": len(named),
            "skipped": len(inventory) - len(named),
            "megabytes": round(_bytes(inventory) / 1e6, 1),
            "counts": _markdown(_counts(named)),
            "skipped_rows": _markdown(_skipped(inventory)),
            "corrected": images.corrected.images,
            "corrections_without_image": list(images.corrected.unmatched),
        },
        data_version=dg.DataVersion(images.data_version),
    )


def _counts(named: pd.DataFrame) -> pd.DataFrame:
    """Number of images by source, site and class, and by split."""
    rows = named.assign(
        site=named["site"].fillna("unknown"), split=named["split"].fillna("to be drawn")
    )
    return (
        rows.groupby(["source", "site", "label", "split"])
        .size()
        .unstack(fill_value=0)
        .reset_index()
    )


def _skipped(inventory: pd.DataFrame) -> pd.DataFrame:
    """Number of rows skipped by source and kind of reason, with the first of each.

    Nothing can be removed from Dagster's event log: it gets no names of withdrawn patients.
    """
    rows = inventory[inventory["problem"].notna()]
    # Not partition: of no rows it makes no columns.
    kind = rows["problem"].str.split(":", n=1).str[0].rename("reason")
    text = rows["path"] + ": " + rows["problem"].str.split(": ", n=1).str[-1]
    text = text.mask(rows["problem"] == WITHDRAWN, "")
    groups = text.groupby([rows["source"], kind])
    counted = [
        (*key, len(group), "; ".join(filter(None, group.head(_EXAMPLES)))) for key, group in groups
    ]
    return pd.DataFrame(counted, columns=["source", "reason", "rows", "examples"])


def _bytes(inventory: pd.DataFrame) -> float:
    return float(inventory.drop_duplicates(["source", "path"])["bytes"].sum())


def _markdown(table: pd.DataFrame) -> dg.MarkdownMetadataValue:
    return dg.MetadataValue.md(table.to_markdown(index=False))
