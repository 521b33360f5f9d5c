"""What a message says of a failed run. It leaves Dagster, so it names no patient and no source."""

import re
from collections.abc import Iterator

import dagster as dg
from dagster_shared.error import SerializableErrorInfo

_STEPS = 3
_LINES = 3
_CHARACTERS = 500
# Errors of these say nothing of images, patients, sources and sites.
_OPEN = (
    "cxr_assets.learning.",
    "cxr_assets.release.upload.",
    "cxr_assets.radiographs.kaggle.",
    "cxr_assets.witness.",
    "cxr_serving.model.",
)
# What the system says, without the file.
_SYSTEM = re.compile(r"\w+: \[Errno \d+\] [^:]+")


def described(context: dg.RunFailureSensorContext) -> list[str]:
    """The failed steps, each with the first lines of its error; without any, the run's message."""
    events = context.get_step_failure_events()
    if not events:
        return [_first_lines(context.failure_event.message or "no step failed")]
    lines = [
        f"{event.step_key}: {reason(event.step_failure_data.error)}" for event in events[:_STEPS]
    ]
    more = len(events) - _STEPS
    return [*lines, f"and {more} more steps"] if more > 0 else lines


def reason(error: SerializableErrorInfo | None) -> str:
    """The first lines of an error, or its type alone where they may name a patient or a file."""
    chain = list(_chain(error))
    if not chain:
        return "no error is on record"
    outside = [one for one in chain if not _of_dagster(one)]
    if not outside:
        return _first_lines(chain[-1].message)
    for one in outside:
        if one.message.startswith(_OPEN):
            return _first_lines(f"{one.cls_name}: {one.message.partition(': ')[2]}")
        if found := _SYSTEM.match(one.message):
            return found[0].strip()
    return f"{outside[0].cls_name} (its text, in the run, may name patients or files)"


def _chain(error: SerializableErrorInfo | None) -> Iterator[SerializableErrorInfo]:
    while error is not None:
        yield error
        error = error.cause


def _of_dagster(error: SerializableErrorInfo) -> bool:
    return error.message.startswith("dagster.") or error.cls_name == "RetryRequested"


def _first_lines(text: str) -> str:
    return "\n".join(text.strip().splitlines()[:_LINES])[:_CHARACTERS]
