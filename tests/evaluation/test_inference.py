import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tiny
from reporting import RELEASED, report_on

from cxr_assets.evaluation import inference
from cxr_assets.layout import Layout
from cxr_serving.model import store
from cxr_serving.model.predictor import Answers, Predictor
from cxr_serving.model.preprocessing import Preprocessing
from cxr_serving.model.report import Report, ReportError


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
    pixels = np.stack([main.preprocessing.decode(path).pixels for path in paths])
    for predictor, probabilities in zip((main, other, probe), answers, strict=True):
        np.testing.assert_allclose(probabilities, predictor.predict(pixels), atol=1e-5)


def test_the_colour_of_the_source_counts_where_its_grey_copy_is_read(reported: Layout) -> None:
    paths = sorted((reported.processed / "test").rglob("*.png"))[:3]
    main = Predictor(store.latest(reported.models("convnext_model")))
    reasons: list[tuple[str, ...]] = []

    def observe(pixels: np.ndarray, answers: Answers) -> None:
        reasons.extend(verdict.reasons for verdict in answers.verdicts or ())

    inference.predict([main], paths, observe, [0, 0.5, np.nan])
    assert reasons == [(), ("colour",), ()]


def test_each_evaluated_image_is_decoded_once(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    main = store.latest(layout.models("convnext_model"))
    shutil.copytree(main, layout.releases / RELEASED)
    store.write_pointer(layout.releases, RELEASED)
    decoded: Counter[bytes] = Counter()
    decode = Preprocessing.decode

    def counted(self: Preprocessing, source: bytes) -> np.ndarray:
        decoded[source] += 1
        return decode(self, source)

    monkeypatch.setattr(Preprocessing, "decode", counted)
    report = report_on(layout)
    assert Report.read(report).regression is not None, "three models were evaluated"
    assert "class activation map" in (report / "report.html").read_text(), "errors are shown"
    paths: list[Path] = []
    for split in ("test", "external", "val"):
        paths += (layout.processed / split).rglob("*.png")
    assert decoded == Counter(path.read_bytes() for path in paths)


@pytest.mark.parametrize("damage", ["missing", "broken"])
def test_a_damaged_test_image_is_named(layout: Layout, damage: str) -> None:
    image = layout.processed / "test" / "normal" / "image-3.png"
    if damage == "missing":
        image.unlink()
    else:
        image.write_bytes(image.read_bytes()[:80])
    with pytest.raises(ReportError, match="materialise processed_dataset again") as caught:
        report_on(layout)
    assert "image-3.png" in str(caught.value)
