"""The command that repeats a training, as the model card gives it."""

import json
import re
from collections.abc import Iterator
from typing import Any

from cxr_assets.experiment import Experiment, ExperimentError, compose
from cxr_assets.overrides import PATHS, WHOLE, beyond_hydra, join, literal
from cxr_serving.model.places import expanded

_PLACEHOLDER = "/path/to/your/copy"


def command(experiment: Experiment) -> str:
    """The command, with the settings that differ from the preset's.

    Paths of the machine it ran on are replaced by a placeholder.
    """
    preset, overrides = dict(_settings(_preset(experiment.preset))), []
    for key, value in _settings(experiment):
        if value and _is_place(key, value):
            overrides.append(f"{key}={_PLACEHOLDER}")
        elif value != preset[key]:
            overrides.append(f"{key}={_written(key, value)}")
    environment = f"CXR_EXPERIMENT={experiment.preset}"
    if overrides:
        # Within double quotes a shell still reads these four.
        quoted = re.sub(r'([\\"$`])', r"\\\1", join(overrides))
        environment += f' CXR_OVERRIDES="{quoted}"'
    return f"{environment} \\\n  dagster job execute -m cxr_assets.definitions -j retrain"


def _written(key: str, value: Any) -> str:
    """In Hydra's grammar, or in JSON what that cannot say: a key such as ``J15 (9)``."""
    hydra = literal(value)
    return json.dumps(value, ensure_ascii=False) if beyond_hydra(f"{key}={hydra}") else hydra


def _preset(name: str) -> Experiment:
    try:
        return compose(name)
    except ExperimentError:  # a preset of a folder needs one
        return compose(name, [f"data.folder={_PLACEHOLDER}"])


def _is_place(key: str, value: str) -> bool:
    """Whether it is a path of this machine, not a hub id."""
    return key in PATHS and (key.startswith("data.") or expanded(value).is_dir())


def _settings(experiment: Experiment) -> Iterator[tuple[str, Any]]:
    values = experiment.model_dump(mode="json")
    values["data"]["sources"] = [
        {
            key: _PLACEHOLDER if f"data.{key}" in PATHS else value
            for key, value in source.model_dump(mode="json", exclude_defaults=True).items()
        }
        for source in experiment.data.sources
    ]
    return _flat(values)


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict) and prefix + key not in WHOLE:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
