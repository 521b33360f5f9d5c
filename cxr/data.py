"""``cxr data``: what concerns images and patients, not models."""

from pathlib import Path
from typing import Annotated

import typer

from cxr.extras import needs
from cxr.places import place

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@app.command()
def check(
    table: Annotated[
        Path,
        typer.Argument(
            help="CSV or Parquet file, one row per image, or a folder of such.",
            metavar="TABLE",
            parser=place,
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            help="Hydra overrides, such as data.columns.label=finding.", metavar="KEY=VALUE"
        ),
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option(help="File for all rows that cannot be used.", metavar="FILE", parser=place),
    ] = None,
) -> None:
    """Say what a table of images holds, in seconds, before anybody trains.

    Counts images and patients by class, split, site, size and bits per pixel, lists the rows that
    cannot be used with the reason, and writes a page of sample images below the data root. Nothing
    else is changed. The exit status is 1 if the table cannot be read or no image can be used.

    \b
    Examples:
      cxr data check labels.csv
      cxr data check labels.csv data.columns.label=finding data.labels.Viral=viral_pneumonia

    \b
    Environment:
      CXR_DATA_ROOT   where the page is written (default: data)
      CXR_EXPERIMENT  preset, for the classes and the size of images (default: demo)
      CXR_OVERRIDES   of these, classes, data.columns and data.labels count
    """
    with needs("pipeline"):
        from cxr_assets.checking import main as check

    check(table, overrides or [], csv)


@app.command()
def forget(
    patient: Annotated[
        str,
        typer.Argument(
            help="As the source names the patient, or SOURCE/PATIENT.", metavar="PATIENT"
        ),
    ],
) -> None:
    """Remove a patient who withdrew consent from everything below the data root.

    The withdrawal is recorded first, so that no later run takes the patient's images again. They
    are removed from the dataset, the embeddings and the reports, and the bundles and releases that
    know them are listed. The files of the source are not touched. The exit status is 1 if the
    patient is unknown or something could not be removed; the same command then does the rest.

    \b
    Examples:
      cxr data forget 4711
      cxr data forget clinic/4711

    \b
    Environment:
      CXR_DATA_ROOT  where everything lies (default: data)
    """
    with needs("pipeline"):
        from cxr_assets.forgetting import main as forget

    forget(patient)
