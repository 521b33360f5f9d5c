"""The groups of settings of an experiment, with the valid range of every value."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from cxr_assets.ranges import is_repository


def _hub_id_or_directory(pretrained: str) -> str:
    is_path = pretrained.startswith((".", "/", "~")) or Path(pretrained).is_dir()
    if not is_path and not is_repository(pretrained):
        raise ValueError("neither a directory nor a hub id such as facebook/dinov2-small")
    return pretrained


def _zero_or_concentration(mixing: float) -> float:
    if 0 < mixing < 1e-6:
        raise ValueError("it must be 0, or a parameter of a Beta distribution of at least 0.000001")
    return mixing


# Ranges that the code accepts. Lightning's and NumPy's generators take 32-bit seeds; the number of
# epochs is below the distance between two seeds (cxr_assets.radiographs.datamodule.epoch_seed).
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Epochs = Annotated[int, Field(gt=0, le=1_000_000)]
Count = Annotated[int, Field(gt=0, le=1_000_000)]
Width = Annotated[int, Field(gt=0, le=4096)]
Depth = Annotated[int, Field(gt=0, le=100)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Rate = Annotated[float, Field(gt=0, le=1)]
Penalty = Annotated[float, Field(ge=1e-12, le=1e6)]
Mixing = Annotated[float, Field(ge=0, le=1e6), AfterValidator(_zero_or_concentration)]
Strength = Annotated[float, Field(ge=0, le=3)]
Loss = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0, le=1e6)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]{0,95}$")]
Revision = Annotated[str, Field(pattern=r"^\w[\w./-]*$")]
Precision = Literal["auto", "fp32", "bf16"]
Pretrained = Annotated[str, AfterValidator(_hub_id_or_directory)]


class Group(BaseModel):
    """Settings that belong together."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Model(Group):
    """The main network and its learning rates.

    Attributes:
        name: name of the architecture in checkpoints and reports.
        pretrained: hub id, local directory in the hub's format, or null for training from scratch.
        revision: commit of the hub repository.
        hidden_sizes, depths, patch_size: of the network when it starts from scratch.
        initializer_range: standard deviation of its random weights when it starts from scratch.
        drop_path_rate: stochastic depth.
        lr: peak learning rate, reached after ``trainer.warmup_epochs``; then cosine decay to zero.
        layer_decay: factor on the learning rate from each layer to the one below it; 1 is off.
    """

    name: Name
    pretrained: Pretrained | None
    revision: Revision | None
    hidden_sizes: tuple[Width, Width, Width, Width]
    depths: tuple[Depth, Depth, Depth, Depth]
    patch_size: Width
    initializer_range: Rate
    drop_path_rate: Fraction
    # Up to what float32 holds: a rate that is too large ends the training with a clear error.
    lr: Annotated[float, Field(gt=0, le=1e30)]
    layer_decay: Annotated[float, Field(gt=0, le=1)]


class Probe(Group):
    """The frozen baseline: a DINOv2 backbone and one linear layer on its CLS embedding.

    Attributes:
        name: name of the architecture in checkpoints and reports.
        pretrained: hub id, local directory in the hub's format, or null for random weights.
        revision: commit of the hub repository.
        hidden_size, num_hidden_layers, num_attention_heads, patch_size: of a random backbone.
        weight_decays: L2 penalties on the linear layer, from strong to weak; the one with the best
            validation macro F1 is kept; the strongest of equals.
    """

    name: Name
    pretrained: Pretrained | None
    revision: Revision | None
    hidden_size: Width
    num_hidden_layers: Depth
    num_attention_heads: Width
    patch_size: Width
    weight_decays: Annotated[tuple[Penalty, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> "Probe":
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"probe.hidden_size={self.hidden_size} is not a multiple of "
                f"probe.num_attention_heads={self.num_attention_heads}"
            )
        return self

    @field_validator("weight_decays")
    @classmethod
    def _from_strong_to_weak(cls, weight_decays: tuple[float, ...]) -> tuple[float, ...]:
        if list(weight_decays) != sorted(set(weight_decays), reverse=True):
            raise ValueError("weight decays must go from strong to weak, without repeats")
        return weight_decays


class Augmentation(Group):
    """Strength of each kind of augmentation: 0 is off, 1 is the usual strength.

    Attributes:
        flip: share of images that are flipped horizontally.
        affine: of rotation, shift and scale.
        exposure: of gamma, contrast and brightness.
        detail: of sharpening and blurring.
        noise: of added noise.
        collimation: of black borders.
    """

    flip: Annotated[float, Field(ge=0, le=1)]
    affine: Strength
    exposure: Strength
    detail: Strength
    noise: Strength
    collimation: Strength


class Trainer(Group):
    """Training of the main network.

    Attributes:
        max_epochs: maximum number of epochs.
        patience: epochs without a better validation macro F1 before training stops.
        batch_size: images per batch, which is what must fit into memory.
        accumulate: batches per step of the optimiser, which thus averages over
            ``batch_size * accumulate`` images.
        devices: accelerators of one machine that share each batch; they change the result by
            rounding alone.
        precision: of the network's arithmetic in training: ``fp32``, ``bf16`` (mixed: weights and
            optimiser stay in float32), or ``auto``, which is bf16 on CUDA and fp32 elsewhere.
        optimizer: ``adamw``, or ``muon`` for hidden matrices with AdamW for the rest.
        weight_decay: of the optimiser.
        warmup_epochs: epochs of linear warm-up.
        label_smoothing: of the cross entropy.
        class_balance: ``weights`` in the loss, ``sampling`` of all classes equally often, or
            ``none``.
        mixup: parameter of the Beta distribution of mixing weights; 0 is off.
        cutmix: the same for rectangles pasted from another image; 0 is off.
        distillation: weight of the loss by which the network learns the embeddings of the probe's
            pretrained backbone, too, see :mod:`cxr_assets.learning.distillation`; 0 is off.
        progressive: share of their side at which training images start; they grow to all of it in
            four steps, see :func:`cxr_assets.radiographs.datamodule.stages`; 1 is off.
        ema_decay: of the exponential moving average of the weights, which is validated and kept;
            0 is off.
        flip_averaging: whether the model answers with the mean over an image and its horizontal
            flip.
        augmentation: of training images.
    """

    max_epochs: Epochs
    patience: Epochs
    batch_size: Count
    accumulate: Count
    devices: Annotated[int, Field(gt=0, le=64)]
    precision: Precision
    optimizer: Literal["adamw", "muon"]
    weight_decay: Annotated[float, Field(ge=0, le=10)]
    warmup_epochs: Annotated[float, Field(ge=0, le=1_000_000)]
    label_smoothing: Fraction
    class_balance: Literal["weights", "sampling", "none"]
    mixup: Mixing
    cutmix: Mixing
    distillation: Weight
    progressive: Annotated[float, Field(ge=0.5, le=1)]
    ema_decay: Fraction
    flip_averaging: bool
    augmentation: Augmentation

    @model_validator(mode="after")
    def _warm_up_ends(self) -> "Trainer":
        if self.warmup_epochs > self.max_epochs:
            raise ValueError(
                f"trainer.warmup_epochs={self.warmup_epochs:g} is more than "
                f"trainer.max_epochs={self.max_epochs}"
            )
        return self

    @model_validator(mode="after")
    def _devices_have_images(self) -> "Trainer":
        if self.devices > self.batch_size:
            raise ValueError(
                f"trainer.devices={self.devices} is more than the trainer.batch_size="
                f"{self.batch_size} images that they share"
            )
        return self


class Compute(Group):
    """Where images are prepared and embedded, and where models are trained; it shapes no result.

    Attributes:
        engine: ``local``, the machine of the run, or ``ray``, a Ray cluster.
        address: of the dashboard of the Ray cluster, such as http://head:8265.
        workers: processes on the cluster that share the images, or each batch of a training.
        cpus, gpus: that each of them reserves there.
    """

    engine: Literal["local", "ray"]
    address: Annotated[str, Field(pattern=r"^https?://[^\s/@]+/?$")] | None
    workers: Annotated[int, Field(gt=0, le=64)]
    cpus: Annotated[float, Field(gt=0, le=1024)]
    gpus: Annotated[float, Field(ge=0, le=64)]

    @model_validator(mode="after")
    def _cluster_has_an_address(self) -> "Compute":
        if self.engine == "ray" and self.address is None:
            raise ValueError(
                "compute.engine=ray needs compute.address, that of the cluster's dashboard, such "
                "as http://head:8265"
            )
        return self


class Rule(Group):
    """What a model must fulfil to be released without a person: one clause for each setting.

    The last model that was released is the champion; differences are those of the new model to it.

    Attributes:
        margin: macro F1 by which the model must beat the probe: the lower end of the interval.
        non_inferiority: macro F1 that the model may lose: the lower end of the interval.
        class_loss: recall that it may lose in any class.
        site_loss: accuracy that it may lose at any site.
        calibration_error: highest expected calibration error, as served.
    """

    margin: Annotated[float, Field(ge=-1, le=1)]
    non_inferiority: Loss
    class_loss: Loss
    site_loss: Loss
    calibration_error: Loss


class Release(Group):
    """What is released.

    Attributes:
        rule: what a model must fulfil.
    """

    rule: Rule


class Tracking(Group):
    """Tracking in MLflow; it does not shape any result.

    Attributes:
        required: whether a run fails if MLflow does; otherwise it continues, and MLflow receives
            later what it missed.
    """

    required: bool
