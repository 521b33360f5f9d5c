import numpy as np
import pytest
from cohort import CLASSES, TARGETS, images

from cxr_assets.evaluation import shortcuts as module
from cxr_assets.evaluation.shortcuts import border, shortcuts
from cxr_serving.model.report import Audit, NoAudit

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _few_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TREES", 25)


def test_a_frame_that_gives_the_class_away_is_detected():
    pixels = np.full((120, 64, 64), 128, dtype=np.uint8)
    revealing = images(width=1000 + 200 * TARGETS + RNG.integers(-20, 20, 120))
    audit = shortcuts(revealing, border(pixels), CLASSES, 0.9)
    assert audit.frame.macro_f1 > 0.95
    assert audit.frame.gain == pytest.approx(0.9 - audit.frame.macro_f1, abs=1e-6)
    assert audit.border == NoAudit(reason="it is the same for all images")


def test_a_border_that_gives_the_class_away_is_detected_and_the_inside_is_not_seen():
    noise = RNG.integers(0, 256, (120, 64, 64), dtype=np.uint8)
    inside = noise.copy()
    inside[:, 8:-8, 8:-8] = (100 * TARGETS)[:, None, None]
    assert shortcuts(images(), border(inside), CLASSES, 0.9).border.macro_f1 < 0.6
    outside = noise.copy()
    outside[:, :3] = (100 * TARGETS)[:, None, None]
    assert shortcuts(images(), border(outside), CLASSES, 0.9).border.macro_f1 > 0.95


def test_a_patient_is_never_in_two_folds_of_the_audit():
    # Every patient has a frame of its own, which says nothing about other patients of its class.
    patients = np.arange(120) // 8
    frames = RNG.permutation(15)[patients] * 10.0 + 500
    table = images(width=frames, patient=[f"patient {patient}" for patient in patients])
    pixels = np.full((120, 64, 64), 128, dtype=np.uint8)
    assert shortcuts(table, border(pixels), CLASSES, 0.9).frame.accuracy < 0.7


def test_too_few_patients_are_not_audited():
    table = images(patient=[f"patient {target}" for target in TARGETS])
    pixels = RNG.integers(0, 256, (120, 64, 64), dtype=np.uint8)
    audit = shortcuts(table, border(pixels), CLASSES, 0.9)
    assert audit.frame == NoAudit(reason="needs two classes with 5 patients each")


def test_the_border_of_any_input_size_can_be_audited():
    pixels = RNG.integers(0, 256, (120, 150, 150), dtype=np.uint8)
    assert isinstance(shortcuts(images(), border(pixels), CLASSES, 0.9).border, Audit)
