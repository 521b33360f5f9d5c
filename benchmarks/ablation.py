"""The worth of each ingredient: ``python -m benchmarks.ablation data.folder=FOLDER``.

Every arm is the recipe, the first of them, with something changed, trained for a short time with
three seeds, and judged on the validation split alone. Given again, the command resumes where it was
stopped: a training that is published is not repeated.
"""

import sys
from dataclasses import asdict
from functools import partial

import pandas as pd

from cxr_assets import sweep, tracking
from cxr_assets.settings import Settings

SEEDS = (0, 1, 2)
# Short trainings on small images: enough to tell what helps, not how far it goes.
BUDGET = ("trainer.max_epochs=4", "data.image_size=128")
ARMS: dict[str, list[str]] = {
    "the recipe": [],
    "no average of the weights": ["trainer.ema_decay=0"],
    "AdamW in place of Muon": ["trainer.optimizer=adamw"],
    "initial weights of 0.02": ["model.initializer_range=0.02"],
    "no augmentation of image processing": ["trainer.augmentation.detail=0"],
    "no augmentation of exposure": ["trainer.augmentation.exposure=0"],
    "with class weights": ["trainer.class_balance=weights"],
    "with balanced sampling": ["trainer.class_balance=sampling"],
    "with label smoothing": ["trainer.label_smoothing=0.1"],
    "no drop path": ["model.drop_path_rate=0"],
    "with mixup": ["trainer.mixup=0.2"],
    "with cutmix": ["trainer.cutmix=1"],
    "with the horizontal flip": ["trainer.flip_averaging=true"],
}


def main() -> None:
    """Train what is missing, keep the table up to date, and print it."""
    settings = Settings()
    layout = settings.layout
    common = [*BUDGET, *sys.argv[1:]]
    # Seed by seed, so that a table of what is there is never of one arm alone.
    jobs = {
        (arm, seed): sweep.expand("scratch", [*overrides, f"seed={seed}"], common)[0]
        for seed in SEEDS
        for arm, overrides in ARMS.items()
    }
    place = layout.sweeps / "ablation.csv"
    progress = partial(print, file=sys.stderr, flush=True)
    tracking.open_store(settings.mlflow_uri, layout, progress)
    rows = []
    with tracking.training_run("ablation", {"overrides": " ".join(common)}):
        results = sweep.run(list(jobs.values()), layout, progress)
        for (arm, seed), result in zip(jobs, results, strict=True):
            rows.append({"ingredient": arm, "seed": seed, **asdict(result)})
            sweep.save(place, pd.DataFrame(rows), progress)
    tracking.close("FINISHED")
    print(table(pd.DataFrame(rows)))


def table(results: pd.DataFrame) -> str:
    """Markdown: a row an arm, mean and standard deviation over the seeds, compared to the first."""
    arms = results.groupby("ingredient", sort=False).agg(
        mean=("macro_f1", "mean"),
        std=("macro_f1", "std"),
        auroc=("auroc", "mean"),
        minutes=("minutes", "mean"),
    )
    markdown: str = (
        pd.DataFrame(
            {
                "validation macro F1": arms["mean"].map("{:.3f}".format)
                + " ± "
                + arms["std"].map("{:.3f}".format),
                "to the recipe": (arms["mean"] - arms["mean"].iloc[0]).map("{:+.3f}".format),
                "AUROC": arms["auroc"].map("{:.3f}".format),
                "minutes": arms["minutes"].round(1),
            }
        )
        .reset_index()
        .to_markdown(index=False, disable_numparse=True)
    )
    return markdown


if __name__ == "__main__":
    main()
