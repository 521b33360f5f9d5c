"""Asset ``processed_dataset``: grey PNGs at input size, by class and patient-wise split."""

import dagster as dg

from cxr_assets.defs.assets import GROUP, OWNERS, WEEKLY
from cxr_assets.defs.assets.raw_kaggle import raw_kaggle
from cxr_assets.defs.resources import DataRoot, Experiment
from cxr_assets.layout import Layout
from cxr_assets.tracking import Run


@dg.asset(
    deps=[raw_kaggle],
    group_name=GROUP,
    kinds={"pillow", "parquet"},
    owners=OWNERS,
    freshness_policy=WEEKLY,
    description=(
        "8-bit grey PNGs at input size, in `{train,val,test}/{class}/`, and a manifest with one "
        "row per source image. A split that the source gives is kept, only Kaggle's train and val "
        "are drawn again; other patients are drawn, and a patient stays where it was drawn. Images "
        "without a known patient are left out, unless `data.unknown_patients=own`. Only new images "
        "are decoded."
    ),
)
def processed_dataset(
    context: dg.AssetExecutionContext,
    experiment: Experiment,
    data_root: DataRoot,
    mlflow: dg.ResourceParam[Run],
) -> dg.MaterializeResult[None]:
    import pandas as pd

    from cxr_assets.defs import cluster
    from cxr_assets.defs.assets import tables
    from cxr_assets.forgetting import forget_absent
    from cxr_assets.radiographs import changes, decoding, raw
    from cxr_assets.radiographs.dataset import DatasetRecord
    from cxr_assets.radiographs.preparation import prepare

    settings = experiment.resolve()
    layout = data_root.pull(context)
    if settings.compute.engine == "ray":
        reused = cluster.run(
            context, settings, layout, mlflow, "prepare", decoding=decoding.version()
        )
        record = DatasetRecord.read(layout.processed)
    else:
        images = raw.read(layout)
        record, reused = prepare(layout, images, settings.data, settings.classes, context.log.info)
    with data_root.exchanged(context):
        embedded, reports = forget_absent(layout, context.log.info)
    if embedded or reports:
        context.log.info(
            f"images that left the dataset were removed from {len(reports)} reports, and "
            f"{embedded} embeddings"
        )
    counts = pd.DataFrame(record.counts)
    what_changed = changes.sentence(record.changes)
    if reused:
        what_changed = f"No image has changed since the last run. {what_changed}"
    context.log.info(
        f"{'reused' if reused else 'prepared'} {counts.to_numpy().sum()} images, "
        f"{sum(record.skipped.values())} skipped, data version {record.data_version[:12]}. "
        f"{what_changed}"
    )
    mlflow.set_tags({"data_version": record.data_version, "experiment": settings.preset})
    return dg.MaterializeResult(
        metadata={
            "directory": dg.MetadataValue.path(str(layout.processed)),
            "reused": reused,
            "synthetic": record.synthetic,
            "image_size": record.image_size,
            "counts": tables.numbers(counts),
            "counts_by_source": tables.numbers(tables.by_split(record.sources, counts.columns)),
            **(
                {"counts_by_site": tables.numbers(tables.by_split(record.sites, counts.columns))}
                if record.sites
                else {}
            ),
            "changes": what_changed,
            **(
                {"changes_by_class_and_site": tables.numbers(changes.table(record.changes))}
                if record.changes and not reused
                else {}
            ),
            "unknown_patients": record.unknown_patients,
            "corrupt": record.skipped.get("corrupt", 0),
            "skipped": record.skipped,
            # Nothing can be removed from Dagster's event log: it gets no image of a patient.
            **({"samples": _samples(layout)} if record.synthetic else {}),
        },
        data_version=dg.DataVersion(record.data_version),
    )


def _samples(layout: Layout) -> dg.MarkdownMetadataValue:
    from cxr_assets.defs.assets import pictures
    from cxr_assets.evaluation import plots
    from cxr_assets.radiographs import dataset

    images = dataset.samples(layout.processed, "train", 3)
    return pictures.markdown(
        plots.image_grid(images, "Training images after preparation", synthetic=True)
    )
