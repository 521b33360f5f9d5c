"""Asset ``raw_kaggle``: the images as they came, verified."""

import dagster as dg

from cxr_assets.defs.resources import DataRoot, Experiment
from cxr_assets.radiographs import raw
from cxr_assets.tracking import Run


@dg.asset(
    group_name="data",
    kinds={"kaggle", "jpeg"},
    owners=["team:maintainers"],
    description=(
        "Chest radiographs as they came: from Kaggle, from a folder (`data.folder`, referenced and "
        "never written to), or synthetic images. Layout, headers and hashes are verified; "
        "the data version is that of the content."
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
            "root": dg.MetadataValue.path(str(images.root)),
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
