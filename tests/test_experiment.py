import json
from collections.abc import Iterator
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from cxr_assets.experiment import Experiment, ExperimentError, compose, presets
from cxr_assets.learning.convnext import ConvNext
from cxr_assets.learning.probe import Dinov2Probe
from cxr_assets.radiographs.datamodule import EpochShuffle, epoch_seed
from cxr_assets.ranges import problems


def test_every_preset_composes():
    assert presets() == ["demo", "distilled", "full", "scratch"]
    assert compose("demo").data.source == "synthetic"
    assert compose("scratch", ["data.folder=images"]).data.source == "folder"
    full = compose("full")
    assert full.data.dataset == "paultimothymooney/chest-xray-pneumonia"
    assert full.model.pretrained == "facebook/convnextv2-tiny-22k-224"
    assert full.probe.pretrained == "facebook/dinov2-small"
    assert full.data.image_size == 224


def test_hub_revisions_are_pinned_to_a_commit():
    full = compose("full")
    for revision in (full.model.revision, full.probe.revision):
        assert revision is not None
        assert len(revision) == 40
        int(revision, 16)


def test_overrides_reach_values_and_groups():
    experiment = compose("demo", ["seed=7", "trainer.max_epochs=5", "model=convnextv2_atto"])
    assert (experiment.seed, experiment.trainer.max_epochs) == (7, 5)
    assert experiment.model.name == "convnextv2-atto"


@pytest.mark.parametrize(
    ("preset", "overrides", "message"),
    [
        ("dmo", [], "did you mean 'demo'"),
        ("demo", ["trainer.max_epoch=3"], r"did you mean 'trainer\.max_epochs'"),
        ("demo", ["sed=3"], "did you mean 'seed'"),
        ("demo", ["+trainer.momentum=3"], "no setting named"),
        ("demo", ["seed"], "not of the form key=value"),
        ("demo", ["seed=-1"], "seed"),
        ("demo", ["model.lr=fast"], r"model\.lr"),
        ("demo", ["model=resnet"], "resnet"),
        ("scratch", [], r"data\.folder"),
        ("demo", ["data.val_fraction=1.5"], r"data\.val_fraction"),
        ("demo", ["classes=[accuracy,image,normal]"], "no class can be named accuracy or image"),
    ],
)
def test_mistakes_are_rejected_by_name(preset, overrides, message):
    with pytest.raises(ExperimentError, match=message):
        compose(preset, overrides)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed=4294967296", "seed: .*, not 4294967296; it must be at least 0 and below 4294967296"),
        (
            "data.val_fraction=0.9",
            r"data\.val_fraction: .*, not 0\.9; it must be above 0 and at most 0\.5",
        ),
        ("model.lr=nan", r"model\.lr: .*, not nan; it must be above 0 and at most 1e\+30$"),
        (
            "release.rule.margin=-inf",
            r"release\.rule\.margin: .*, not -inf; it must be at least -1 and at most 1$",
        ),
        ("trainer.mixup=1e-300", r"trainer\.mixup: it must be 0, or .*, not 1e-300"),
        (
            "model.hidden_sizes=[8,8,8,0]",
            r"model\.hidden_sizes\.3: .*, not 0; it must be above 0 and",
        ),
        ("trainer.warmup_epochs=21", r"warmup_epochs=21 is more than trainer\.max_epochs=20"),
        ("probe.num_attention_heads=5", r"hidden_size=192 is not a multiple"),
        ("data.synthetic_patients=2", r"data\.synthetic_patients=2 .* at least 3"),
        ("model.pretrained=my group/net", "neither a directory nor a hub id such as"),
        (
            "trainer.distillation=1",
            r"trainer\.distillation=1 needs a pretrained teacher.* set probe=dinov2_small",
        ),
        ("model.name=a/b", r"model\.name: .*, not a/b"),
        ("trainer=3", "trainer=3"),
    ],
)
def test_what_the_code_cannot_take_is_rejected_with_its_range(override, message):
    with pytest.raises(ExperimentError, match=message):
        compose("demo", [override])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.patch_size=9", r"data\.image_size=64 is too small for model\.patch_size=9.* 72"),
        (
            "trainer.progressive=0.75 model.patch_size=8",
            r"trainer\.progressive=0\.75 of data\.image_size=64 is too small .* at least 1$",
        ),
        ("probe.patch_size=14", r"data\.image_size=64 is not a multiple .* 56 and 70"),
        ("probe.pretrained=/nowhere/dino", "probe.pretrained=/nowhere/dino is not a directory"),
    ],
)
def test_what_a_later_step_would_stumble_over_is_rejected_at_the_start(override, message):
    with pytest.raises(ExperimentError, match=message):
        compose("demo", override.split()).require_runnable()


def test_every_preset_is_runnable():
    for preset in presets():
        needed = ["data.folder=/images"] if preset in ("distilled", "scratch") else []
        compose(preset, needed).require_runnable()


def leaves(values: dict[str, Any], place: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from leaves(value, (*place, key))
        else:
            yield (*place, key)


DEMO = compose("demo").model_dump(mode="json")
NUMBERS = st.one_of(
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.sampled_from([0, -1, 2**32 - 1, 2**32, 2**63, 1e-320, 1e308, -0.0]),
)
ANYTHING = st.one_of(NUMBERS, st.lists(NUMBERS, max_size=5), st.text(max_size=9), st.none())


@settings(max_examples=300, deadline=None)
@given(place=st.sampled_from(sorted(leaves(DEMO))), value=ANYTHING)
def test_whatever_is_set_it_plans_or_is_rejected_by_name(
    place: tuple[str, ...], value: object
) -> None:
    values = json.loads(json.dumps(DEMO))
    group = values
    for key in place[:-1]:
        group = group[key]
    group[place[-1]] = value
    try:
        experiment = Experiment.model_validate(values)
    except ValidationError as error:
        reported = problems(error, Experiment)
    else:
        reported = ""
        plan(experiment)
    assert not reported or ".".join(place) in reported


def plan(experiment: Experiment) -> None:
    """What the first steps of a training ask of the libraries."""
    for recipe in (ConvNext(experiment), Dinov2Probe(experiment)):
        json.dumps(recipe.settings(), allow_nan=False)
        if recipe.base[0] is None:
            recipe.network(experiment.data.image_size)
    last = experiment.trainer.max_epochs - 1
    lightning.seed_everything(epoch_seed(experiment.seed, last), verbose=False)
    np.random.RandomState(experiment.data.seed)
    order = EpochShuffle(
        torch.arange(3), experiment.trainer.batch_size, experiment.seed, balanced=True
    )
    order.set_epoch(last)
    assert sum(map(len, order)) == 3


def test_seeds_in_use_keep_their_streams() -> None:
    assert [epoch_seed(seed, 4) for seed in (0, 1, 2, 7)] == [4, 1000007, 2000010, 7000025]
    assert 0 <= epoch_seed(2**32 - 1, 999_999) < 2**32


LISTED = ("data=sources", "data.sources=[{name: a, source: table, table: /a.csv}]")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.table=a.csv"], "data.table is set, but not read.* Set data=table, too"),
        (["data.folder=/a"], "data.folder is set, but not read.* Set data=folder, too"),
        ([*LISTED, "data.labels.Viral=normal"], "data.labels is set, but not read: set labels of"),
        ([*LISTED, "data.columns.path=File"], "data.columns is set, but not read: set columns of"),
        (["data=sources", "data.sources=[{name: a, source: table}]"], "set table of the source a"),
    ],
)
def test_a_setting_of_a_source_that_would_be_ignored_is_an_error(
    overrides: list[str], message: str
) -> None:
    with pytest.raises(ExperimentError, match=message):
        compose("demo", overrides)
