import os
import subprocess

import pytest

from cxr_assets.experiment import Experiment, compose
from cxr_assets.overrides import split
from cxr_assets.release.reproduction import command

PLACE = "/path/to/your/copy"


def again(experiment: Experiment) -> Experiment:
    """The experiment of the command, as a shell reads it."""
    assignments, _ = command(experiment).split(" \\\n")
    answer = subprocess.run(
        ["bash", "-c", f'export {assignments}; printf %s "${{CXR_OVERRIDES:-}}"'],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    return compose(experiment.preset, split(answer.stdout))


@pytest.mark.parametrize(
    ("preset", "overrides"),
    [
        ("demo", []),
        ("demo", ["classes=[normal,pneumonia]", "data.labels={bacterial_pneumonia: pneumonia}"]),
        ("scratch", [f"data.folder={PLACE}", "seed=7"]),
        (
            "scratch",
            [
                *("data=table", f"data.table={PLACE}", f"data.corrections={PLACE}"),
                "data.labels={Viral: viral_pneumonia, No Finding: normal, a\\:b\\,c: null}",
                "data.columns.site='Hospital, ward'",
            ],
        ),
        (
            "full",
            [
                "data=sources",
                "data.sources=[{name: public, source: kaggle, dataset: owner/name, use: train},"
                f"{{name: ours, source: table, table: {PLACE}, labels: {{X: null, B 1: normal}},"
                "columns: {label: 'true'}}]",
            ],
        ),
    ],
)
def test_the_command_composes_the_same_experiment(preset: str, overrides: list[str]) -> None:
    experiment = compose(preset, overrides)
    assert again(experiment) == experiment


def test_the_command_names_no_path_of_this_machine() -> None:
    table = compose("scratch", ["data=table", "data.table=/ward/7.csv", "data.corrections=/ward/c"])
    several = "[{name: a, source: folder, folder: /ward}, {name: b, source: table, table: /ward/b}]"
    for experiment in (table, compose("full", ["data=sources", f"data.sources={several}"])):
        assert "ward" not in command(experiment)
        assert command(experiment).count(PLACE) == 2
