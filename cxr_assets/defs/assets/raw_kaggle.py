"""Asset ``raw_kaggle``: the source images, verified and listed."""

import dagster as dg

from cxr_assets.defs.assets import GROUP, OWNERS, WEEKLY
from cxr_assets.defs.resources import DataRoot, Experiment
from cxr_assets.radiographs import raw
from cxr_assets.tracking import Run


@dg.asset(
    group_name=GROUP,
    kinds={"kaggle", "jpeg"},
    owners=OWNERS,
    freshness_policy=WEEKLY,
    description=(
        "The source images: downloaded from Kaggle, read in place from `data.folder`, or "
        "synthetic. Checks the folder layout, every image header and every hash. The data version "
        "is a hash of the content: it changes only when the images do."
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
    images = raw.collect(settings.data, data_root.layout, context.log.info)
    named = images.inventory[images.inventory["problem"].isna()]
    return dg.MaterializeResult(
        metadata={
            "source": settings.data.source,
            "root": dg.MetadataValue.path(", ".join(map(str, images.roots.values()))),
            "synthetic": images.synthetic,
            "unchanged": images.unchanged,
            "images": len(named),
            "skipped": len(images.inventory) - len(named),
            "megabytes": round(float(images.inventory["bytes"].sum()) / 1e6, 1),
            "counts": dg.MetadataValue.md(
                named.groupby(["label", "split"]).size().unstack(fill_value=0).to_markdown()
            ),
        },
        data_version=dg.DataVersion(images.data_version),
    )
