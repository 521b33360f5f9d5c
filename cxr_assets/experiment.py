"""Experiments: Hydra presets plus overrides, resolved into one checked, immutable object."""

import difflib
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import Field, ValidationError, model_validator

from cxr_assets.groups import (
    Augmentation,
    Compute,
    Count,
    Group,
    Model,
    Probe,
    Release,
    Seed,
    Tracking,
    Trainer,
)
from cxr_assets.overrides import EXAMPLE, ExperimentError, apply, beyond_hydra, for_hydra
from cxr_assets.ranges import is_repository, problems
from cxr_assets.sources import Data
from cxr_serving.model.places import expanded

__all__ = [
    "Augmentation",
    "Compute",
    "Data",
    "Experiment",
    "ExperimentError",
    "Model",
    "Probe",
    "Release",
    "Tracking",
    "Trainer",
    "compose",
    "presets",
]

CONF = Path(__file__).parent / "conf"

ClassName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]{0,63}$")]
# Columns of the table of `cxr predict`, and keys beside the classes in a report.
_TAKEN = {"image", "label", "model", "accuracy", "macro_average", "weighted_average"}

# Its keys are words of the user.
_FREE = "data.labels"
# After the patch layer, ConvNeXt halves the resolution three times.
_REDUCTION = 8


class Experiment(Group):
    """Everything that shapes a training.

    Attributes:
        preset: name of its preset.
        seed: of every random choice.
        deterministic: whether to use only reproducible kernels.
        keep_versions: number of bundles, reports and releases kept on disk.
        classes: names of the classes, in alphabetical order, which is their index order.
    """

    preset: str
    seed: Seed
    deterministic: bool
    keep_versions: Count
    classes: Annotated[tuple[ClassName, ...], Field(min_length=2, max_length=50)]
    data: Data
    model: Model
    probe: Probe
    trainer: Trainer
    compute: Compute
    release: Release
    tracking: Tracking

    @model_validator(mode="after")
    def _classes_agree(self) -> "Experiment":
        if list(self.classes) != sorted(set(self.classes)):
            raise ValueError(
                "classes must be in alphabetical order, without repeats: "
                f"classes=[{','.join(sorted(set(self.classes)))}]"
            )
        if taken := sorted(_TAKEN & set(self.classes)):
            raise ValueError(f"no class can be named {' or '.join(taken)}: name it otherwise")
        for source in self.data.listed:
            for word, label in source.labels.items():
                if label is not None and label not in self.classes:
                    raise ValueError(
                        f"{source.setting('labels')} maps {word!r} to {label!r}, which is no "
                        f"class: the classes are {', '.join(self.classes)}, and null leaves it out"
                    )
        return self

    @model_validator(mode="after")
    def _workers_are_the_devices(self) -> "Experiment":
        workers = self.compute.workers
        if self.compute.engine == "local":
            return self
        if self.trainer.devices > 1:
            raise ValueError(
                f"trainer.devices={self.trainer.devices} is for one machine: with compute=ray, set "
                f"compute.workers={self.trainer.devices} and trainer.devices=1"
            )
        if workers > self.trainer.batch_size:
            raise ValueError(
                f"compute.workers={workers} is more than the trainer.batch_size="
                f"{self.trainer.batch_size} images that they share"
            )
        return self

    @model_validator(mode="after")
    def _teacher_is_pretrained(self) -> "Experiment":
        if self.trainer.distillation and self.probe.pretrained is None:
            raise ValueError(
                f"trainer.distillation={self.trainer.distillation:g} needs a pretrained teacher, "
                "and probe.pretrained is null: set probe=dinov2_small (and probe.pretrained to a "
                "directory with its weights, where the hub cannot be reached), or "
                "trainer.distillation=0"
            )
        return self

    @property
    def devices(self) -> int:
        """How many accelerators, or processes without one, share each batch of a training."""
        local = self.compute.engine == "local"
        return self.trainer.devices if local else self.compute.workers

    def require_runnable(self) -> None:
        """Check at the start of a run what otherwise only a later step would reject.

        Raises:
            ExperimentError: the image size is too small for the main network or no multiple of the
                probe's patch size, or a directory of pretrained weights is missing.
        """
        size, patch = self.data.image_size, self.model.patch_size
        smallest = _REDUCTION * patch
        if size < smallest:
            raise ExperimentError(
                f"data.image_size={size} is too small for model.patch_size={patch}: it must be at "
                f"least {smallest}"
            )
        if (share := self.trainer.progressive) * size < smallest:
            raise ExperimentError(
                f"trainer.progressive={share:g} of data.image_size={size} is too small for "
                f"model.patch_size={patch}: it must be at least {smallest / size:.12g}"
            )
        if left := size % self.probe.patch_size:
            fitting = (size - left or self.probe.patch_size, size - left + self.probe.patch_size)
            raise ExperimentError(
                f"data.image_size={size} is not a multiple of probe.patch_size="
                f"{self.probe.patch_size}, which would crop the images: the nearest are "
                f"{' and '.join(map(str, dict.fromkeys(fitting)))}"
            )
        for key, value in (
            ("model.pretrained", self.model.pretrained),
            ("probe.pretrained", self.probe.pretrained),
        ):
            if value is None or is_repository(value) or expanded(value).is_dir():
                continue
            raise ExperimentError(
                f"{key}={value} is not a directory: set it to a directory or a hub id"
            )


def presets() -> list[str]:
    """The names of the presets in ``conf/experiment``."""
    return sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))


def compose(preset: str, overrides: Sequence[str] = ()) -> Experiment:
    """Resolve a preset and Hydra overrides (``seed=7``, ``model=convnextv2_tiny``).

    Raises:
        ExperimentError: unknown preset or key (with the nearest valid name), value out of range.
    """
    return _composed(preset, tuple(overrides))


# Every step of a run composes the same one, and Hydra is slow.
@cache
def _composed(preset: str, overrides: tuple[str, ...]) -> Experiment:
    if preset not in presets():
        raise ExperimentError(f"no experiment named {preset!r}{_nearest(preset, presets())}")
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF)):
        valid = _valid(preset)
        for override in overrides:
            key = re.sub(r"@.*", "", override.split("=", 1)[0]).strip().lstrip("+~")
            if "=" not in override:
                raise ExperimentError(
                    f"override {override!r} is not of the form key=value; quote a value with "
                    f"spaces, as in {EXAMPLE}"
                )
            if key not in valid and not key.startswith(_FREE + "."):
                raise ExperimentError(
                    f"no setting named {key!r} in experiment {preset!r}{_nearest(key, valid)}"
                )
        ours = [override for override in overrides if beyond_hydra(override)]
        others = [for_hydra(override) for override in overrides if override not in ours]
        if any(override.lstrip("+").startswith("data.sources=") for override in ours):
            others.append("data.sources=[]")  # until they are applied; they must not be missing
        try:
            config = hydra_compose("config", [f"experiment={preset}", *others])
            values: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
        except (HydraException, OmegaConfBaseException, ValueError, TypeError) as error:
            typed = f" with {' '.join(overrides)}" if overrides else ""
            raise ExperimentError(f"experiment {preset!r}{typed}: {error}") from error
    apply(ours, values["data"])
    try:
        return Experiment.model_validate({"preset": preset, **values})
    except ValidationError as error:
        raise ExperimentError(f"experiment {preset!r}: {problems(error, Experiment)}") from error


@cache
def _valid(preset: str) -> tuple[str, ...]:
    """What an override may name; where Hydra is initialised."""
    return (*_keys(hydra_compose("config", [f"experiment={preset}"])), *_groups())


def _keys(config: DictConfig, prefix: str = "") -> Iterator[str]:
    for key in map(str, config):
        name = f"{prefix}{key}"
        yield name
        if not OmegaConf.is_missing(config, key) and isinstance(config[key], DictConfig):
            yield from _keys(config[key], f"{name}.")


def _groups() -> list[str]:
    return [path.name for path in CONF.iterdir() if path.is_dir() and path.name != "experiment"]


def _nearest(name: str, valid: Sequence[str]) -> str:
    match = difflib.get_close_matches(name, valid, n=1, cutoff=0.4)
    return f"; did you mean {match[0]!r}?" if match else f"; valid are {', '.join(sorted(valid))}"
