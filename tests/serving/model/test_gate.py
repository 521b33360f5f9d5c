"""What the gate rejects, and how it is kept."""

from pathlib import Path

import gates
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from cxr_assets.radiographs import alteration
from cxr_assets.radiographs.alteration import EXPECTED
from cxr_serving.model.bundle import BundleError
from cxr_serving.model.gate import DESCRIPTIONS, REASONS, Gate, Likeness, Verdict, repaired

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 32, 32), dtype=np.uint8)


def judge(gate: Gate, images: np.ndarray = IMAGES, colour: float = 0) -> list[Verdict]:
    tints = np.full(len(images), colour, np.float32)
    return gate.judge(images, tints, np.zeros((len(images), 8), np.float32))


def test_every_reason_is_described() -> None:
    assert list(DESCRIPTIONS) == list(REASONS)


def test_a_repair_undoes_what_is_wrong() -> None:
    [image, *_] = IMAGES
    for turns, reason in ((-1, "rotated_90"), (2, "rotated_180"), (1, "rotated_270")):
        repair = Verdict((reason,)).repair
        assert repair is not None
        np.testing.assert_array_equal(repaired(np.rot90(image, turns), repair), image)
    np.testing.assert_array_equal(repaired(255 - image, "invert"), image)
    assert Verdict(("not_chest",)).repair is None


def test_reasons_come_in_order_and_what_is_no_chest_is_nothing_else() -> None:
    assert all(verdict.accepted for verdict in judge(gates.rejecting()))
    [verdict, *_] = judge(gates.rejecting("unlike_training", "colour", "flipped"), colour=1)
    assert verdict.reasons == ("flipped", "colour", "unlike_training")
    assert not verdict.accepted
    gate = gates.rejecting("unlike_training", "not_chest", "colour", "flipped")
    assert judge(gate, colour=1)[0].reasons == ("not_chest", "colour")


def test_an_altered_radiograph_is_rejected_for_what_it_is() -> None:
    upright = np.asarray(gates.radiograph().resize((64, 64)))[np.newaxis]
    gate = gates.knowing(64)
    assert judge(gate, upright)[0].accepted
    for kind in ("rotated_90", "rotated_180", "rotated_270", "inverted", "flipped", "text"):
        [verdict] = judge(gate, alteration.apply(kind, upright, 0))
        assert verdict.reasons == (EXPECTED[kind],)


def test_distances_are_those_of_mahalanobis() -> None:
    rng = np.random.default_rng(0)
    variances = np.array([9, 4, 1, 1], np.float32)
    directions, _ = np.linalg.qr(rng.normal(size=(4, 4)))
    means = rng.normal(size=(2, 4)).astype(np.float32)
    axes = (directions[:, :2] * np.sqrt(1 - 1 / variances[:2])).astype(np.float32)
    points = rng.normal(size=(5, 4)).astype(np.float32)
    whitened = (points[:, None] - means) @ (directions / np.sqrt(variances))
    expected = np.square(whitened).sum(axis=2).min(axis=1) / 4
    found = Likeness(means, axes, np.ones(1, np.float32)).distance(points)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_a_gate_is_read_as_it_was_written_and_a_broken_one_is_named(tmp_path: Path) -> None:
    assert Gate.read(tmp_path) is None
    gates.knowing(64).write(tmp_path)
    gate = Gate.read(tmp_path)
    assert gate is not None
    assert judge(gate) == judge(gates.knowing(64))
    path = tmp_path / "gate.safetensors"
    tensors = load_file(path)
    save_file(tensors | {"thresholds": np.zeros(9, np.float32)}, path)
    with pytest.raises(BundleError, match=r"gate\.safetensors has other checks than this code"):
        Gate.read(tmp_path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(BundleError, match=r"gate\.safetensors cannot be read"):
        Gate.read(tmp_path)
