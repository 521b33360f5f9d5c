import numpy as np
import pytest
from cohort import CLASSES, TARGETS, images

from cxr_assets.evaluation import shortcuts as module
from cxr_assets.evaluation.shortcuts import shortcuts

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _few_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TREES", 25)


def test_a_frame_that_tells_the_class_is_found_out():
    pixels = np.full((120, 64, 64), 128, dtype=np.uint8)
    telling = images(width=1000 + 200 * TARGETS + RNG.integers(-20, 20, 120))
    audit = shortcuts(telling, pixels, CLASSES)
    assert audit["frame"]["macro_f1"] > 0.95
    assert audit["border"] == {"reason": "it is the same for all images"}


def test_a_border_that_tells_the_class_is_found_out_and_what_is_inside_is_not_seen():
    noise = RNG.integers(0, 256, (120, 64, 64), dtype=np.uint8)
    inside = noise.copy()
    inside[:, 8:-8, 8:-8] = (100 * TARGETS)[:, None, None]
    assert shortcuts(images(), inside, CLASSES)["border"]["macro_f1"] < 0.6
    outside = noise.copy()
    outside[:, :3] = (100 * TARGETS)[:, None, None]
    assert shortcuts(images(), outside, CLASSES)["border"]["macro_f1"] > 0.95


def test_a_child_is_never_on_both_sides_of_the_audit():
    # Every patient has a frame of its own, which says nothing about other patients of its class.
    children = np.arange(120) // 8
    frames = RNG.permutation(15)[children] * 10.0 + 500
    table = images(width=frames, patient=[f"patient {child}" for child in children])
    pixels = np.full((120, 64, 64), 128, dtype=np.uint8)
    assert shortcuts(table, pixels, CLASSES)["frame"]["accuracy"] < 0.7


def test_too_few_children_are_not_audited():
    table = images(patient=[f"patient {target}" for target in TARGETS])
    pixels = RNG.integers(0, 256, (120, 64, 64), dtype=np.uint8)
    audit = shortcuts(table, pixels, CLASSES)
    assert audit["frame"] == {"reason": "needs two classes with 5 patients each"}


def test_the_border_of_any_input_size_can_be_audited():
    pixels = RNG.integers(0, 256, (120, 150, 150), dtype=np.uint8)
    assert "macro_f1" in shortcuts(images(), pixels, CLASSES)["border"]
