import pytest
from pydantic import ValidationError

from cxr_assets.experiment import compose
from cxr_assets.groups import Probe, Rule, Trainer


@pytest.mark.parametrize(
    ("weight_decays", "valid"),
    [((1.0,), True), ((1.0, 0.1), True), ((0.1, 1.0), False), ((1.0, 1.0), False), ((), False)],
)
def test_weight_decays_go_from_strong_to_weak(
    weight_decays: tuple[float, ...], valid: bool
) -> None:
    values = {**compose("demo").probe.model_dump(), "weight_decays": weight_decays}
    if valid:
        assert Probe.model_validate(values).weight_decays == weight_decays
    else:
        with pytest.raises(ValidationError):
            Probe.model_validate(values)


def test_a_group_is_immutable_and_takes_no_unknown_setting() -> None:
    rule = compose("demo").release.rule
    with pytest.raises(ValidationError):
        rule.margin = 0  # type: ignore[misc]
    with pytest.raises(ValidationError, match="Extra inputs"):
        Rule.model_validate({**rule.model_dump(), "loss": 0})


@pytest.mark.parametrize(("mixup", "valid"), [(0, True), (0.2, True), (1e-9, False), (-1, False)])
def test_mixing_is_off_or_strong_enough_for_a_beta_distribution(mixup: float, valid: bool) -> None:
    values = {**compose("demo").trainer.model_dump(), "mixup": mixup}
    if valid:
        assert Trainer.model_validate(values).mixup == mixup
    else:
        with pytest.raises(ValidationError):
            Trainer.model_validate(values)


@pytest.mark.parametrize(
    "setting", [{"accumulate": 0}, {"precision": "fp16"}, {"devices": 0}, {"devices": 17}]
)
def test_settings_of_gpus_are_checked(setting: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(setting))):
        Trainer.model_validate({**compose("demo").trainer.model_dump(), **setting})
