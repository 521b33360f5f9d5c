import numpy as np
import pytest
import tiny

from cxr_assets.evaluation import inference
from cxr_assets.layout import Layout
from cxr_serving.model import store
from cxr_serving.model.predictor import Predictor
from cxr_serving.model.preprocessing import Preprocessing


def test_models_with_other_preprocessing_get_their_own_pass(
    reported: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "_BATCH", 4)
    paths = sorted((reported.processed / "test").rglob("*.png"))[:6]
    main, probe = (
        Predictor(store.latest(reported.models(asset)))
        for asset in ("convnext_model", "dinov2_probe")
    )
    other = Predictor(main.directory)
    other.preprocessing = Preprocessing(tiny.SIZE, std=(0.5, 0.5, 0.5))
    seen: list[int] = []
    answers = inference.predict(
        [main, other, probe], paths, lambda pixels, *answer: seen.append(len(pixels))
    )
    assert seen == [4, 2], "batches of the main model only"
    assert [len(of_model) for of_model in answers] == [6, 6, 6]
    pixels = np.stack([main.preprocessing.decode(path) for path in paths])
    for predictor, probabilities in zip((main, other, probe), answers, strict=True):
        np.testing.assert_allclose(probabilities, predictor.predict(pixels), atol=1e-5)
