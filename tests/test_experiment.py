import pytest

from cxr_assets.experiment import ExperimentError, compose, presets


def test_every_preset_composes():
    assert presets() == ["demo", "full", "scratch"]
    assert compose("demo").data.source == "phantom"
    assert compose("scratch", ["data.folder=films"]).data.source == "folder"
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
    ],
)
def test_mistakes_are_refused_by_name(preset, overrides, message):
    with pytest.raises(ExperimentError, match=message):
        compose(preset, overrides)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed=4294967296", "seed=4294967296: it must be at least 0 and below 4294967296"),
        ("data.val_fraction=0.9", r"data\.val_fraction=0\.9: it must be above 0 and at most 0\.5"),
        ("model.lr=nan", r"model\.lr=nan: .*it must be above 0 and at most 1$"),
        ("margin=-inf", r"margin=-inf: .*it must be at least -1 and at most 1$"),
        ("trainer.mixup=1e-300", r"trainer\.mixup=1e-300: it must be 0, or"),
        ("model.hidden_sizes=[8,8,8,0]", r"model\.hidden_sizes\.3=0: it must be at least 1 and"),
        ("trainer.warmup_epochs=21", r"warmup_epochs=21 is more than trainer\.max_epochs=20"),
        ("model.patch_size=9", r"data\.image_size=64 is too small for model\.patch_size=9.* 72"),
        ("probe.patch_size=14", r"data\.image_size=64 is not a multiple .* 56 and 70"),
        ("probe.num_attention_heads=5", r"hidden_size=192 is not a multiple"),
        ("data.phantom_patients=2", r"data\.phantom_patients=2 .* at least 3"),
        ("model.pretrained=my group/net", "neither a directory nor a hub id such as"),
        ("model.name=a/b", r"model\.name=a/b"),
        ("trainer=3", "trainer=3"),
    ],
)
def test_what_the_code_cannot_take_is_rejected_with_its_range(override, message):
    with pytest.raises(ExperimentError, match=message):
        compose("demo", [override])


def test_weights_that_are_to_come_from_a_directory_are_looked_for_first():
    with pytest.raises(ExperimentError, match=r"probe\.pretrained=/nowhere/dino is not a direc"):
        compose("demo", ["probe.pretrained=/nowhere/dino"]).require_directories()
    compose("full").require_directories()
