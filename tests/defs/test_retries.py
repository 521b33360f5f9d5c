import dagster as dg
import pytest

from cxr_assets.defs import retries

SCHEDULED = {"dagster/schedule_name": "weekly_retrain"}


class UnreachableError(Exception):
    pass


@pytest.fixture
def slept(monkeypatch) -> list[float]:
    """The waits, which are over at once."""
    slept: list[float] = []
    monkeypatch.setattr(retries.time, "sleep", slept.append)
    return slept


def attempts(errors: list[Exception], tags: dict[str, str] | None = None) -> tuple[int, bool]:
    """How often a step runs that raises these errors one after the other, and its success."""
    left = list(errors)
    begun = 0

    @dg.op
    def download(context: dg.OpExecutionContext) -> None:
        nonlocal begun
        begun += 1
        with retries.reconnecting(context, UnreachableError):
            if left:
                raise left.pop(0)

    @dg.job
    def job() -> None:
        download()

    done = job.execute_in_process(raise_on_error=False, tags=tags)
    return begun, done.success


def caused() -> Exception:
    error = ValueError("the source cannot be read")
    error.__cause__ = UnreachableError("Kaggle does not answer")
    return error


def test_a_scheduled_run_tries_again_with_growing_waits(slept):
    assert attempts([UnreachableError("down"), caused()], SCHEDULED) == (3, True)
    assert slept == [60, 240]


def test_it_gives_up_after_three(slept):
    assert attempts([UnreachableError("down")] * 9, SCHEDULED) == (4, False)
    assert slept == list(retries.WAITS)


@pytest.mark.parametrize(
    ("error", "tags"),
    [(ValueError("a wrong setting"), SCHEDULED), (UnreachableError("down"), None)],
    ids=["another error", "somebody waits"],
)
def test_what_a_person_has_to_see_fails_at_once(slept, error, tags):
    assert attempts([error], tags) == (1, False)
    assert not slept
