from cxr_assets.evaluation import wording
from cxr_serving.model.bundle import Rejections


def test_metrics_are_written_with_three_decimals_and_their_interval():
    assert wording.score(0.12345, (0.1, 0.2)) == "0.123 (0.100 to 0.200)"
    assert wording.score(0.5) == "0.500"
    assert wording.score(None) == "not defined"
    assert wording.share(0.1234) == "12.3%"
    assert wording.p_value(0.0004) == "p < 0.001"
    assert wording.p_value(0.05) == "p = 0.050"


def test_a_share_of_rejected_images_has_an_interval() -> None:
    assert wording.rejection(Rejections.of(4, 624)) == "0.6% (0.2% to 1.6%)"
    assert wording.rejection(Rejections.of(0, 0)) == "no image"
