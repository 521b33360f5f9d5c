from cxr_assets.evaluation.templates import TEMPLATES
from cxr_serving.model.bundle import Rejections

SPACE = "\N{NO-BREAK SPACE}"


def test_an_interval_stays_on_one_line() -> None:
    score, rejection = (TEMPLATES.filters[name] for name in ("score", "rejection"))
    assert score(0.5, (0.4, 0.6)) == f"0.500 (0.400{SPACE}to{SPACE}0.600)"
    assert f"{SPACE}to{SPACE}" in rejection(Rejections.of(1, 100))
