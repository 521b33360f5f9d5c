import dagster as dg
import pytest

from cxr_assets.defs import failures
from cxr_assets.defs.retries import retried
from cxr_assets.learning.history import DivergedError
from cxr_assets.radiographs.kaggle import KaggleError
from cxr_assets.radiographs.split import SplitError
from cxr_assets.release.release import ReleaseError

DOE = "person12_bacteria_47.jpeg of John Doe in /srv/ward 7"


def failed(error: Exception, cause: Exception | None = None) -> str:
    """What is said of an op that raises the error."""

    @dg.op
    def fit() -> None:
        raise error from cause

    @dg.job
    def job() -> None:
        fit()

    done = job.execute_in_process(raise_on_error=False)
    (event,) = [event for event in done.all_events if event.is_step_failure]
    return failures.reason(event.step_failure_data.error)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (DivergedError("not finite:\n1\n2\n3"), "DivergedError: not finite:\n1\n2"),
        (KaggleError("Kaggle answers HTTP 503"), "KaggleError: Kaggle answers HTTP 503"),
        (OSError(28, "No space left", DOE), "OSError: [Errno 28] No space left"),
    ],
    ids=["own", "download", "system"],
)  # fmt: skip
def test_the_first_lines_say_what_happened(error, said):
    assert failed(error) == said


@pytest.mark.parametrize(
    "error", [SplitError(DOE), ReleaseError(DOE), KeyError(DOE), FileNotFoundError(2, "No", DOE)]
)
def test_no_message_names_a_patient_or_a_file(error):
    said = failed(error)
    assert type(error).__name__ in said
    assert not any(word in said for word in ("person12", "Doe", "ward"))


def test_the_cause_of_a_permitted_error_is_not_quoted():
    assert "Doe" not in failed(DivergedError("not finite"), SplitError(DOE))


def test_after_a_retry_the_error_is_that_of_the_op():
    @dg.op
    def fit() -> None:
        with retried():
            raise MemoryError(DOE)

    @dg.job
    def job() -> None:
        fit()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cxr_assets.defs.retries.RETRY_SECONDS", 0)
        done = job.execute_in_process(raise_on_error=False)
    (event,) = [event for event in done.all_events if event.is_step_failure]
    assert failures.reason(event.step_failure_data.error).startswith("MemoryError (its text")


def test_a_failed_check_names_the_check():
    @dg.asset
    def images() -> None: ...

    @dg.asset_check(asset=images, blocking=True)
    def patients_disjoint() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=False, metadata={"pairs": DOE})

    @dg.asset(deps=[images])
    def model() -> None: ...

    done = dg.materialize([images, patients_disjoint, model], raise_on_error=False)
    (event,) = [event for event in done.all_events if event.is_step_failure]
    said = failures.reason(event.step_failure_data.error)
    assert "patients_disjoint" in said
    assert "Doe" not in said
