"""Asset ``processed_dataset``: grey PNGs at input size, by class and patient-wise split."""

import dagster as dg
import pandas as pd

from cxr_assets.defs.assets import GROUP, OWNERS, WEEKLY, pictures
from cxr_assets.defs.assets.raw_kaggle import raw_kaggle
from cxr_assets.defs.resources import DataRoot, Experiment
from cxr_assets.evaluation import plots
from cxr_assets.radiographs import dataset, raw
from cxr_assets.radiographs.preparation import prepare
from cxr_assets.tracking import Run


@dg.asset(
    deps=[raw_kaggle],
    group_name=GROUP,
    kinds={"pillow", "parquet"},
    owners=OWNERS,
    freshness_policy=WEEKLY,
    description=(
        "8-bit grey PNGs at input size, in `{train,val,test}/{class}/`, and a manifest with one "
        "row per source image. Validation patients are drawn from the source's train and val; its "
        "test split is never changed. Images without a known patient are left out, unless "
        "`data.unknown_patients=own`."
    ),
)
def processed_dataset(
    context: dg.AssetExecutionContext,
    experiment: Experiment,
    data_root: DataRoot,
    mlflow: dg.ResourceParam[Run],
) -> dg.MaterializeResult[None]:
    settings = experiment.resolve()
    layout = data_root.layout
    images = raw.read(layout)
    record, reused = prepare(layout, images, settings.data, context.log.info)
    counts = pd.DataFrame(record.counts)
    context.log.info(
        f"{'reused' if reused else 'prepared'} {counts.to_numpy().sum()} images, "
        f"{sum(record.skipped.values())} skipped, data version {record.data_version[:12]}"
    )
    mlflow.set_tags({"data_version": record.data_version, "experiment": settings.preset})
    return dg.MaterializeResult(
        metadata={
            "directory": dg.MetadataValue.path(str(layout.processed)),
            "reused": reused,
            "synthetic": record.synthetic,
            "image_size": record.image_size,
            "counts": dg.MetadataValue.md(counts.to_markdown()),
            "unknown_patients": record.unknown_patients,
            "corrupt": record.skipped.get("corrupt", 0),
            "skipped": record.skipped,
            "samples": pictures.markdown(
                plots.image_grid(
                    dataset.samples(layout.processed, "train", 3),
                    "Training images after preparation",
                    record.synthetic,
                )
            ),
        },
        data_version=dg.DataVersion(record.data_version),
    )
