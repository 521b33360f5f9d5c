import pytest
import yaml
from releases import FOLDER, KAGGLE, SYNTHETIC

from cxr_assets.experiment import Experiment
from cxr_assets.layout import Layout
from cxr_assets.release import rights
from cxr_assets.release.release import write_release
from cxr_serving.model import store
from cxr_serving.model.bundle import BundleRecord


@pytest.mark.parametrize(
    ("experiment", "named", "licence"),
    [(SYNTHETIC, 1, "Apache-2.0"), (KAGGLE, 2, "CC-BY-NC-4.0"), (FOLDER, 1, None)],
)
def test_how_to_cite(
    reported: Layout, experiment: Experiment, named: int, licence: str | None
) -> None:
    source = experiment.data.source
    record = BundleRecord.read(store.latest(reported.models("convnext_model"))).model_copy(
        update={
            "synthetic": source == "synthetic",
            "pretrained": experiment.model.pretrained and f"{experiment.model.pretrained}@1",
        }
    )
    text = rights.citation(record, [source], "A title: of it", "my-group/cxr")
    cited = yaml.safe_load(text)
    assert cited["cff-version"] == "1.2.0"
    assert cited["title"] == "A title: of it"
    assert cited["authors"] == [{"name": "my-group"}]
    assert (cited["version"], cited["date-released"]) == (record.version, record.created_at.date())
    assert cited.get("license") == licence
    assert len(cited["references"]) == named
    assert all({"type", "title", "authors"} <= set(work) for work in cited["references"])


@pytest.mark.parametrize(
    ("pretrained", "teacher", "synthetic", "licence"),
    [
        (None, "facebook/dinov2-small@1", True, "apache-2.0"),
        (None, "facebook/dinov2-small@1", False, "cc-by-4.0"),
        ("facebook/convnextv2-tiny-22k-224@1", "facebook/dinov2-small@1", False, "cc-by-nc-4.0"),
        ("facebook/convnextv2-tiny-22k-224@1", "my-group/dinov2@1", False, "unknown"),
        (None, "sha256:" + "a" * 64, True, "unknown"),
    ],
)
def test_the_strictest_terms_of_images_weights_and_teacher_apply(
    reported: Layout, pretrained: str | None, teacher: str, synthetic: bool, licence: str
) -> None:
    record = BundleRecord.read(store.latest(reported.models("convnext_model"))).model_copy(
        update={"pretrained": pretrained, "teacher": teacher, "synthetic": synthetic}
    )
    assert rights.licence(record, ["synthetic" if synthetic else "kaggle"]) == licence
    cited = yaml.safe_load(rights.citation(record, [], "title", None))["references"]
    assert cited[1]["title"].startswith("DINOv2")
    assert len(cited[1]["authors"]) == 26


def test_the_licence_lies_beside_the_card(reported: Layout, real: Layout) -> None:
    text = (write_release(reported, None, SYNTHETIC) / "LICENSE.md").read_text()
    assert "Apache-2.0" in text
    assert "Not a medical device" in text
    assert (
        "Settle it before publishing"
        in (write_release(real, None, FOLDER) / "LICENSE.md").read_text()
    )
