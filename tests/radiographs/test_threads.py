from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from cxr_assets.radiographs import threads
from cxr_assets.radiographs.threads import in_order


@pytest.mark.parametrize("calls", [0, 1, 4, 10])
def test_results_come_in_order_and_few_calls_wait(
    calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "_BATCH", 4)
    taken: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(calls):
            taken.append(number)
            yield number

    with ThreadPoolExecutor(2) as pool:
        found = []
        for result in in_order(pool, lambda one, two: one * two, numbers(), range(calls)):
            found.append(result)
            assert len(taken) <= len(found) + 3
    assert found == [number**2 for number in range(calls)]


def test_an_error_is_that_of_its_call() -> None:
    with ThreadPoolExecutor(2) as pool, pytest.raises(ZeroDivisionError):
        list(in_order(pool, lambda number: 1 / number, [2, 1, 0, 1]))
