"""What the benchmark of scaling makes of its measurements."""

import mmap
from pathlib import Path

import pytest

from benchmarks.scaling.costs import Cost, each, exponent, measure
from benchmarks.scaling.projection import disk, hours, memory


def test_a_step_is_measured_by_what_it_takes_beyond_an_idle_process(tmp_path: Path) -> None:
    def step() -> None:
        # Not from what earlier tests have freed, which the process still has.
        with mmap.mmap(-1, 40_000_000) as memory:
            for page in range(0, len(memory), mmap.PAGESIZE):
                memory[page] = 1
            (tmp_path / "made").write_bytes(memory)

    cost = measure(step, tmp_path)
    assert cost.memory == pytest.approx(40e6, rel=0.25)
    assert cost.disk == pytest.approx(40e6, rel=0.01)
    assert 0 < cost.seconds < 30


def test_a_step_that_fails_ends_the_benchmark(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RuntimeError, match="failed"):
        measure(lambda: (tmp_path / "absent").unlink(), tmp_path)
    assert "FileNotFoundError" in capfd.readouterr().err


@pytest.mark.parametrize("power", [0, 0.8, 1, 2])
def test_the_exponent_is_that_of_the_two_largest_sizes(power: float) -> None:
    assert exponent([50, *(3 * n**power for n in (40, 160))]) == pytest.approx(power)


def test_what_takes_nothing_has_no_exponent_and_no_cost_of_an_image() -> None:
    assert exponent([10, 0, 3]) is None
    assert each([10, 9, 8], [1, 2, 3]) == 0


def test_a_projection_adds_what_is_in_proportion_and_what_comparisons_take() -> None:
    units = dict.fromkeys(("preparation", "embedding", "training", "pass"), 0.1)
    costs = {step: [Cost(1, 0, 0), Cost(1, 0, 0)] for step in ("epoch", "report")}
    # Half a second an image; .001 s times the root of the cube of the images.
    comparisons = {
        "similar": [Cost(0.5 * n, 0, 0) for n in (100, 400)],
        "strange": [Cost(0.001 * n**1.5, 0, 0) for n in (100, 400)],
    }
    found = hours(costs, [10, 20], units, comparisons, [100, 400])
    assert found["epoch"][2] == pytest.approx(10**7 * 0.1 * 0.85 / 3600)
    assert found["report"][2] == pytest.approx((10**7 * (0.045 + 0.5) + 0.001 * 10**10.5) / 3600)


def test_memory_and_disk_are_projected_from_what_an_image_more_takes() -> None:
    sizes, sides = [100, 400], (64, 256)
    costs = {"preparation": [Cost(1, 5e6, 1e6), Cost(1, 8e6, 4e6)]}
    assert memory(costs, sizes)["preparation"][2] == pytest.approx(10**7 * 1e4 / 1e9)
    # 10 kB of disk at 64 pixels; at 160, that share of the 150 kB that 256 take more.
    prepared = [Cost(1, 0, 1e6), Cost(1, 0, 16e6)]
    area = (160**2 - 64**2) / (256**2 - 64**2)
    found = disk(costs, sizes, prepared, sides, 160)["preparation"][2]
    assert found == pytest.approx(10**7 * (1e4 + area * 150e3) / 1e9)
