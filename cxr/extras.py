"""The optional dependencies that a command needs."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Exit with 2 and name the extra if an import within fails because it is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith(("cxr_serving", "cxr_assets.")):
            raise
        sys.stderr.write(
            f'error: this command needs the extra "{extra}": {error.name} is not installed. In the '
            f'project\'s folder: pip install -c constraints.txt ".[{extra}]"\n'
        )
        raise typer.Exit(2) from None
