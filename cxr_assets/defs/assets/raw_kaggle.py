"""Asset ``raw_kaggle``: the source images, verified and listed."""

import dagster as dg

from cxr_assets.defs.assets import GROUP, OWNERS, WEEKLY
from cxr_assets.defs.resources import DataRoot, Experiment
from cxr_assets.defs.retries import reconnecting
from cxr_assets.tracking import Run


@dg.asset(
    group_name=GROUP,
    kinds={"kaggle", "jpeg"},
    owners=OWNERS,
    freshness_policy=WEEKLY,
    description=(
        "The source images: downloaded from Kaggle, read in place from a folder or as a table "
        "lists them, or synthetic. Checks every row, every image header and every hash. The data "
        "version is a hash of the content: it changes only when images or labels do. Lists which "
        "new images the gate of the newest model rejects, and leaves none of them out."
    ),
)
def raw_kaggle(
    context: dg.AssetExecutionContext,
    experiment: Experiment,
    data_root: DataRoot,
    mlflow: dg.ResourceParam[Run],
) -> dg.MaterializeResult[None]:
    from cxr_assets.defs.assets import tables
    from cxr_assets.evaluation.screening import screen
    from cxr_assets.radiographs import raw
    from cxr_assets.radiographs.kaggle import UnreachableError

    settings = experiment.resolve()
    settings.require_runnable()
    layout = data_root.pull(context)
    with reconnecting(context, UnreachableError):
        images = raw.collect(settings.data, settings.classes, layout, context.log.info)
    inventory = images.inventory
    named = inventory[inventory["problem"].isna()]
    # The data version does not depend on it: what a model thinks of images changes no image.
    screened = screen(layout, images, "convnext_model", context.log.info)
    if screened.page is not None:
        context.log.warning(f"{screened.summary}: none is left out. Look at {screened.page}")
    return dg.MaterializeResult(
        metadata={
            "sources": {source.name: source.source for source in images.sources},
            "roots": {name: str(root) for name, root in images.roots.items()},
            "synthetic": images.synthetic,
            "unchanged": images.unchanged,
            "images": len(named),
            "skipped": len(inventory) - len(named),
            "megabytes": tables.megabytes(inventory),
            "counts": tables.rows(tables.counts(named)),
            "skipped_rows": tables.rows(tables.skipped(inventory)),
            "gate": screened.summary,
            **(
                {
                    "rejected_images": tables.rows(tables.rejected(screened.rejected)),
                    "rejected_page": dg.MetadataValue.path(screened.page),
                }
                if screened.page
                else {}
            ),
            "corrected": images.corrected.images,
            "corrections_without_image": list(images.corrected.unmatched),
        },
        data_version=dg.DataVersion(images.data_version),
    )
