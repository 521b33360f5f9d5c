"""Similar vectors are found among many, without comparing all of them with each other."""

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from cxr_assets.radiographs import leakage, nearby

SIZE = 256


@pytest.fixture
def _many(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the tests have counts as many."""
    monkeypatch.setattr(nearby, "_FEW", 100)


def vectors(number: int) -> npt.NDArray[np.float32]:
    made = np.random.default_rng(0).standard_normal((number, SIZE), np.float32)
    made -= made.mean(axis=1, keepdims=True)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def planted(number: int, pairs: int, similarity: float) -> npt.NDArray[np.float32]:
    """Vectors of which the last ones have this similarity to the first ones."""
    made = vectors(number)
    of = made[:pairs]
    other = made[-pairs:] - (made[-pairs:] * of).sum(axis=1, keepdims=True) * of
    other /= np.linalg.norm(other, axis=1, keepdims=True)
    made[-pairs:] = similarity * of + np.sqrt(1 - similarity**2) * other
    return made


def compared(made: npt.NDArray[np.float32]) -> tuple[set[tuple[int, int]], int]:
    """Pairs of one half with the other that meet in a group, and how many are compared in all."""
    half, met, number = len(made) // 2, set(), 0
    for group in nearby.groups(lambda places: made[places], len(made), leakage.SIMILAR):
        assert (np.diff(group) > 0).all()
        number += len(group) ** 2
        others = set(group.tolist())
        met |= {(one, one + half) for one in others if one + half in others}
    return met, number


@pytest.mark.usefixtures("_many")
@pytest.mark.parametrize(("similarity", "found"), [(0.9, 0.995), (0.95, 0.9999), (1.0, 1.0)])
def test_hardly_a_pair_is_overlooked(similarity: float, found: float) -> None:
    met, number = compared(planted(6000, 3000, similarity))
    assert len(met) >= found * 3000
    assert number < 6000**2


@pytest.mark.usefixtures("_many")
def test_few_pairs_more_are_compared_for_each_of_more_images() -> None:
    few, many = (compared(vectors(number))[1] for number in (8000, 32_000))
    assert many < 7 * few  # 16 times as many pairs


def test_few_are_compared_with_each_other() -> None:
    made = vectors(100)
    [group] = nearby.groups(lambda places: made[places], 100, 0.9)
    assert group.tolist() == list(range(100))


@pytest.mark.parametrize("within_splits", [False, True])
def test_images_are_found_as_by_comparing_all_pairs(
    within_splits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(1)
    described = planted(4000, 400, 0.95)
    images = pd.DataFrame(
        {
            "split": rng.choice(["train", "val", "test", "external"], 4000),
            "class": rng.choice(["a", "b"], 4000),
        }
    )
    content = np.arange(4000)
    # Two blank images.
    content[1001] = 1000
    described[[1000, 1001]] = 0
    exact = leakage._similar(images, content, described, within_splits)
    splits = images["split"].to_numpy()
    pairs = [(one, 3600 + one) for one in range(400)] + [(1000, 1001)]
    wanted = {
        frozenset(pair)
        for pair in pairs
        if (splits[pair[0]] != splits[pair[1]] or within_splits)
        and {splits[pair[0]], splits[pair[1]]} != {"test", "external"}
    }
    assert {frozenset(pair[:2]) for pair in exact} == wanted
    monkeypatch.setattr(nearby, "_FEW", 100)
    found = leakage._similar(images, content, described, within_splits)
    assert [pair[:2] for pair in found] == [pair[:2] for pair in exact]
    assert [pair[2] for pair in found] == pytest.approx([pair[2] for pair in exact], abs=1e-5)
