"""``cxr``: the command line of pipeline and service.

The code of a command is imported when it runs: help is quick, and a command needs only its own
extra.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from cxr import data, release
from cxr.extras import needs
from cxr.places import place

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(release.app, name="release", help="Decide on releases.")
app.add_typer(data.app, name="data", help="Check a table of images; forget a patient.")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit with its status; ``sys.argv`` when no arguments are given."""
    app(arguments, prog_name="cxr")


@app.callback()
def cxr() -> None:
    """Train, evaluate and serve classifiers of chest radiographs.

    Models, reports and releases lie below CXR_DATA_ROOT (default: data). For research and education
    only. Not a medical device; not for clinical decisions.
    """


@app.command()
def predict(
    images: Annotated[
        list[Path],
        typer.Argument(
            help="JPEG, PNG or DICOM files, and folders of them.", metavar="IMAGE", parser=place
        ),
    ],
    bundle: Annotated[
        Path | None,
        typer.Option(
            help="Directory of a model. Default: the model that the service would serve.",
            metavar="DIRECTORY",
            parser=place,
        ),
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option(
            help="File for the table; an unfinished one is resumed. Default: standard output.",
            metavar="FILE",
            parser=place,
        ),
    ] = None,
) -> None:
    """Classify images in files and folders, without a service.

    Writes a CSV table, one row per image: the top-1 class; the probability of each class; accepted
    and reasons, which are what the model's gate says; repaired_label, the top-1 class of a rejected
    image if it were not rotated or inverted; the model. The probabilities of a rejected image mean
    nothing. Images that cannot be read are listed at the end, and the exit status is 1.

    \b
    Examples:
      cxr predict /path/to/images --csv answers.csv
      cxr predict a.jpeg b.dcm --bundle data/models/convnext_model/VERSION

    \b
    Environment:
      CXR_DATA_ROOT  where the models lie (default: data)
      CXR_FOLLOW     which model: newest or released (default: newest)
      CXR_DEVICE     cpu, mps or cuda (default: cpu)
      CXR_PRECISION  fp32, or int8 where the model has it (default: fp32)
      CXR_THREADS    threads that compute (default: the CPUs of this process)
    """
    from cxr_serving.predict import predict

    predict(images, bundle, csv)


@app.command()
def evaluate(
    bundle: Annotated[
        Path,
        typer.Option(help="Directory of the model.", metavar="DIRECTORY", parser=place),
    ],
    data: Annotated[
        Path,
        typer.Option(
            help=(
                "Folder of images: NORMAL/ and PNEUMONIA/, below test/ if there is one. Or a CSV "
                "or Parquet file with the columns path, label and patient."
            ),
            metavar="FOLDER|TABLE",
            parser=place,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="Folder for the report: new, empty, or with an earlier report and nothing else.",
            metavar="FOLDER",
            parser=place,
        ),
    ],
    baseline: Annotated[
        Path | None,
        typer.Option(
            help="Directory of a model to compare with.", metavar="DIRECTORY", parser=place
        ),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(
            help="What a label of the images means, where it is no class of the model; LABEL= "
            "leaves its images out. May be repeated.",
            metavar="LABEL=CLASS",
        ),
    ] = None,
) -> None:
    """Write the report of any model on any labelled images.

    \b
    Examples:
      cxr evaluate --bundle data/models/convnext_model/VERSION \\
        --data /path/to/images --out report
      cxr evaluate --bundle data/models/convnext_model/VERSION \\
        --data labels.csv --out report
    """
    labels = {}
    for pair in label or []:
        name, equals, meaning = pair.partition("=")
        if not equals:
            raise typer.BadParameter(f"{pair}: expected LABEL=CLASS", param_hint="--label")
        labels[name] = meaning or None
    with needs("pipeline"):
        from cxr_assets.evaluation.command import evaluate

    evaluate(bundle, data, out, baseline, labels)


@app.command()
def train(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            help="Hydra overrides, such as seed=7 or model=convnextv2_atto.",
            metavar="KEY=VALUE",
        ),
    ] = None,
    multirun: Annotated[
        bool, typer.Option("--multirun", "-m", help="Train every combination of the values.")
    ] = False,
) -> None:
    """Train the main model without Dagster: once, or in a sweep.

    Publishes a bundle but serves none: latest.json is not changed. A training that was interrupted
    is resumed, and a finished one is reused. The exit status is 1 if a training failed and 130
    after Ctrl-C.

    \b
    Examples:
      cxr train experiment=scratch data.folder=/path/to/chest_xray
      cxr train -m model.lr=1e-4,3e-4 seed=0,1,2

    \b
    Environment:
      CXR_DATA_ROOT   where everything is written (default: data)
      CXR_EXPERIMENT  preset: demo, scratch, distilled or full (default: demo)
      CXR_OVERRIDES   Hydra overrides that come before those given here
      CXR_MLFLOW_URI  MLflow server (default: a SQLite file below the data root)
    """
    with needs("pipeline"):
        from cxr_assets.sweep import main as train

    train(overrides or [], multirun)


@app.command()
def summary() -> None:
    """Print the newest test metrics, report and release.

    \b
    Environment:
      CXR_DATA_ROOT  where they lie (default: data)
    """
    with needs("pipeline"):
        from cxr_assets.summary import show

    show()


@app.command()
def serve() -> None:
    """Serve the newest model over HTTP until SIGTERM or Ctrl-C.

    Starts without a model, too, and loads each new version within seconds.

    \b
    Example:
      CXR_PORT=9000 cxr serve

    \b
    Environment (docs/settings.md lists all settings):
      CXR_DATA_ROOT  where the models lie (default: data)
      CXR_HOST       address to listen on (default: 127.0.0.1)
      CXR_PORT       port to listen on (default: 8000)
      CXR_FOLLOW     which model: newest or released (default: newest)
      CXR_PIN        a version to serve whatever is newer
      CXR_KEYS_FILE  API keys (default: none; everybody may send images)
    """
    with needs("serving"):
        from cxr_serving.http.server import serve

    serve()
