"""Processes that are forked from one which has imported the libraries.

Importing them takes longer than what most of these processes are for.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from tempfile import TemporaryDirectory

PROCESSES = multiprocessing.get_context("forkserver")
# What runs of Dagster import, and the commands; nothing that reads the environment as it is
# imported: each command has one of its own.
_IMPORTED = Path(__file__).parents[1] / "benchmarks" / "unattended" / "forked" / "imported.txt"
PROCESSES.set_forkserver_preload(
    [
        "dagster._cli",
        "dagster_dg_cli.cli",
        "mlflow.store.tracking.sqlalchemy_store",
        *_IMPORTED.read_text(encoding="utf-8").split(),
    ]
)
_BIN = Path(sys.executable).parent


def start(
    arguments: Sequence[str], cwd: Path, environment: Mapping[str, str], output: Path
) -> ForkServerProcess:
    """Start a console command of this installation.

    Args:
        arguments: its name first.
        cwd: where.
        environment: the whole of it.
        output: a folder; gets the files ``out`` and ``err``.
    """
    for name in ("out", "err"):
        (output / name).touch()
    process: ForkServerProcess = PROCESSES.Process(
        target=_command, args=(list(arguments), cwd, dict(environment), output)
    )
    process.start()
    return process


def run(
    arguments: Sequence[str], cwd: Path, environment: Mapping[str, str], seconds: float
) -> subprocess.CompletedProcess[str]:
    """Run a console command of this installation to its end, as ``subprocess.run`` does."""
    with TemporaryDirectory() as folder:
        process = start(arguments, cwd, environment, Path(folder))
        process.join(seconds)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(arguments, seconds)
        out, err = ((Path(folder) / name).read_text() for name in ("out", "err"))
        return subprocess.CompletedProcess(arguments, process.exitcode, out, err)


def _command(arguments: list[str], cwd: Path, environment: dict[str, str], output: Path) -> None:
    import torch

    for number, name in ((1, "out"), (2, "err")):
        with (output / name).open("wb") as file:
            os.dup2(file.fileno(), number)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(1)
    sys.argv = arguments
    runpy.run_path(str(_BIN / arguments[0]), run_name="__main__")
