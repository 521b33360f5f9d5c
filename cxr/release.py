"""``cxr release``: decisions on releases."""

from typing import Annotated

import typer

from cxr.extras import needs

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@app.command()
def promote(
    version: Annotated[str, typer.Argument(help="Version of the release.", metavar="VERSION")],
    because: Annotated[str, typer.Option(help="The reason; it is kept.", metavar="REASON")],
) -> None:
    """Release a version that the rule held, or return to an earlier one.

    The decision is kept below CXR_DATA_ROOT with your user name and the reason. The release is
    pushed if CXR_HF_REPO and a token are set, and served by every service that follows releases.

    \b
    Example:
      cxr release promote 20260104T031500Z-1a2b3c4d --because "two radiologists read 200 images"

    \b
    Environment:
      CXR_DATA_ROOT  where the releases lie (default: data)
      CXR_HF_REPO    repository on the Hugging Face Hub (default: none)
    """
    with needs("pipeline"):
        from cxr_assets.release.command import promote

    promote(version, because)
