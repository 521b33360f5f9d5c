"""Experiments: Hydra presets plus overrides, resolved into one checked, immutable object."""

import difflib
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

CONF = Path(__file__).parent / "conf"

Fraction = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[int, Field(gt=0)]
Rate = Annotated[float, Field(gt=0)]
Strength = Annotated[float, Field(ge=0, le=3)]


class ExperimentError(ValueError):
    """The preset or an override is not valid; the message names it and the nearest valid one."""


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Data(_Group):
    """Where the films come from and how they are prepared.

    Attributes:
        source: ``kaggle``, ``folder`` or ``phantom``.
        folder: for ``folder``: where ``train/`` and ``test/`` lie; it is read, never written.
        dataset: for ``kaggle``: owner and name of the data set.
        phantom_patients: for ``phantom``: synthetic children a class.
        image_size: side of the square input, in pixels.
        val_fraction: share of the training patients kept for validation.
        seed: of the draw of these patients and of phantoms. The training's ``seed`` has no part
            in it, so that trainings of several seeds share dataset and split.
        max_corrupt_fraction: share of unreadable films above which preparation fails.
        in_memory_limit: bytes that the films of train and val may take in memory; a larger dataset
            is read from disk batch by batch, with the same result.
    """

    source: Literal["kaggle", "folder", "phantom"]
    folder: Path | None
    dataset: str | None
    phantom_patients: Annotated[int, Field(ge=0)]
    image_size: Annotated[int, Field(ge=32, le=1024)]
    val_fraction: Annotated[float, Field(gt=0, lt=1)]
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    max_corrupt_fraction: Fraction
    in_memory_limit: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def _folder_is_named(self) -> "Data":
        if self.source == "folder" and self.folder is None:
            raise ValueError("data.source=folder needs data.folder")
        return self


class Model(_Group):
    """The main network, and how its weights move.

    Attributes:
        name: architecture, as it appears in checkpoints and reports.
        pretrained: hub id, local directory in the hub's format, or null for training from scratch.
        revision: commit of the hub repository.
        hidden_sizes, depths, patch_size: of the network when it starts from scratch.
        initializer_range: standard deviation of its random weights when it starts from scratch.
        drop_path_rate: stochastic depth.
        lr: peak learning rate, reached after ``trainer.warmup_epochs``, then a cosine to
            zero.
        layer_decay: factor on the learning rate from each layer to the one below it; 1 for none.
    """

    name: str
    pretrained: str | None
    revision: str | None
    hidden_sizes: tuple[Positive, Positive, Positive, Positive]
    depths: tuple[Positive, Positive, Positive, Positive]
    patch_size: Positive
    initializer_range: Rate
    drop_path_rate: Fraction
    lr: Rate
    layer_decay: Annotated[float, Field(gt=0, le=1)]


class Probe(_Group):
    """The frozen baseline: a DINOv2 backbone and one linear layer on its CLS embedding.

    Attributes:
        name: architecture, as it appears in checkpoints and reports.
        pretrained: hub id, local directory in the hub's format, or null for random weights.
        revision: commit of the hub repository.
        hidden_size, num_hidden_layers, num_attention_heads, patch_size: of a random backbone.
        weight_decays: L2 penalties on the linear layer, from strong to weak; the one with the best
            validation macro F1 is kept, of equals the strongest.
    """

    name: str
    pretrained: str | None
    revision: str | None
    hidden_size: Positive
    num_hidden_layers: Positive
    num_attention_heads: Positive
    patch_size: Positive
    weight_decays: Annotated[tuple[Rate, ...], Field(min_length=1)]

    @field_validator("weight_decays")
    @classmethod
    def _from_strong_to_weak(cls, weight_decays: tuple[float, ...]) -> tuple[float, ...]:
        if list(weight_decays) != sorted(set(weight_decays), reverse=True):
            raise ValueError("the weight decays must go from strong to weak, each named once")
        return weight_decays


class Augmentation(_Group):
    """How much training films are varied; 0 leaves a property as it is, 1 is the usual strength.

    Attributes:
        flip: share of films that are mirrored.
        affine: of rotation, shift and scale.
        exposure: of gamma, contrast and brightness.
        detail: of sharpening and blurring.
        noise: of added noise.
    """

    flip: Annotated[float, Field(ge=0, le=1)]
    affine: Strength
    exposure: Strength
    detail: Strength
    noise: Strength


class Trainer(_Group):
    """Training of the main network.

    Attributes:
        max_epochs: epochs at most.
        patience: epochs without a better validation macro F1 before training stops.
        batch_size: films a step.
        optimizer: ``adamw``, or ``muon`` for the matrices inside the network and AdamW elsewhere.
        weight_decay: of the optimiser.
        warmup_epochs: epochs of linear warm-up.
        label_smoothing: of the cross entropy.
        class_balance: ``weights`` in the loss, ``sampling`` (each class as often), or ``none``.
        mixup: parameter of the Beta distribution that films are mixed by; 0 for no mixing.
        cutmix: the same for rectangles of one film pasted into another.
        ema_decay: of the exponential moving average of the weights, which is what is validated and
            kept; 0 for the weights themselves.
        flip_averaging: whether the model answers with the mean over a film and its mirror image.
        augmentation: variation of training films.
    """

    max_epochs: Positive
    patience: Positive
    batch_size: Positive
    optimizer: Literal["adamw", "muon"]
    weight_decay: Annotated[float, Field(ge=0)]
    warmup_epochs: Annotated[float, Field(ge=0)]
    label_smoothing: Fraction
    class_balance: Literal["weights", "sampling", "none"]
    mixup: Annotated[float, Field(ge=0)]
    cutmix: Annotated[float, Field(ge=0)]
    ema_decay: Fraction
    flip_averaging: bool
    augmentation: Augmentation


class Experiment(_Group):
    """Everything that shapes a training.

    Attributes:
        preset: name of the preset it was composed from.
        seed: of every random choice.
        deterministic: whether only reproducible kernels are used.
        keep_versions: bundles, reports and releases kept on disk.
        margin: macro F1 by which the main model must beat the probe before a release.
    """

    preset: str
    seed: Annotated[int, Field(ge=0)]
    deterministic: bool
    keep_versions: Positive
    margin: float
    data: Data
    model: Model
    probe: Probe
    trainer: Trainer


def presets() -> list[str]:
    """The names of the presets in ``conf/experiment``."""
    return sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))


def compose(preset: str, overrides: Sequence[str] = ()) -> Experiment:
    """Resolve a preset and Hydra overrides (``seed=7``, ``model=convnextv2_tiny``).

    Raises:
        ExperimentError: unknown preset or key (with the nearest valid name), value out of range.
    """
    return _composed(preset, tuple(overrides))


# Every step of a run asks for the same one, and Hydra takes a while over it.
@cache
def _composed(preset: str, overrides: tuple[str, ...]) -> Experiment:
    if preset not in presets():
        raise ExperimentError(f"no experiment named {preset!r}{_nearest(preset, presets())}")
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF)):
        valid = [*_keys(hydra_compose("config", [f"experiment={preset}"])), *_groups()]
        for override in overrides:
            key = re.sub(r"@.*", "", override.split("=", 1)[0]).strip().lstrip("+~")
            if "=" not in override:
                raise ExperimentError(f"override {override!r} is not of the form key=value")
            if key not in valid:
                raise ExperimentError(
                    f"no setting named {key!r} in experiment {preset!r}{_nearest(key, valid)}"
                )
        try:
            config = hydra_compose("config", [f"experiment={preset}", *overrides])
            values: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
        except (HydraException, OmegaConfBaseException) as error:
            raise ExperimentError(f"experiment {preset!r}: {error}") from error
    try:
        return Experiment.model_validate({"preset": preset, **values})
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()
        )
        raise ExperimentError(f"experiment {preset!r}: {problems}") from error


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
