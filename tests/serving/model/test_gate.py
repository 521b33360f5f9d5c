"""What the gate rejects, and how it is kept."""

from dataclasses import replace
from pathlib import Path

import gates
import numpy as np
import pytest

from cxr_serving.model.bundle import BundleError
from cxr_serving.model.gate import DESCRIPTIONS, REASONS, Gate, Verdict, repaired

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 32, 32), dtype=np.uint8)


def judge(gate: Gate, colour: float = 0) -> list[Verdict]:
    return gate.judge(IMAGES, np.full(3, colour, np.float32), np.zeros((3, 8), np.float32))


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


def test_reasons_come_in_order_and_one_at_most_is_learnt() -> None:
    assert all(verdict.accepted for verdict in judge(gates.rejecting()))
    [verdict, *_] = judge(gates.rejecting("unlike_training", "inverted", "colour"), colour=1)
    assert verdict.reasons == ("colour", "inverted", "unlike_training")
    assert not verdict.accepted
    assert verdict.repair == "invert"


def test_a_gate_is_read_as_it_was_written_and_a_broken_one_is_named(tmp_path: Path) -> None:
    assert Gate.read(tmp_path) is None
    gates.rejecting("inverted").write(tmp_path)
    gate = Gate.read(tmp_path)
    assert gate is not None
    assert judge(gate) == judge(gates.rejecting("inverted"))
    # As scikit-learn and LAPACK give arrays.
    numbers = np.asfortranarray(np.arange(64, dtype=np.float32).reshape(8, 8))
    replace(gate, whitening=numbers).write(tmp_path)
    again = Gate.read(tmp_path)
    assert again is not None
    np.testing.assert_array_equal(again.whitening, numbers)
    path = tmp_path / "gate.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(BundleError, match=r"gate\.safetensors cannot be read"):
        Gate.read(tmp_path)
