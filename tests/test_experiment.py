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
