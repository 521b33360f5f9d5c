import pytest

from cxr_assets.sampling import evenly


@pytest.mark.parametrize(
    ("length", "most", "chosen"),
    [(10, 4, [0, 3, 6, 9]), (3, 5, [0, 1, 2]), (5, 1, [0]), (0, 5, [])],
)
def test_indices_are_spread_evenly(length: int, most: int, chosen: list[int]) -> None:
    assert evenly(length, most).tolist() == chosen
