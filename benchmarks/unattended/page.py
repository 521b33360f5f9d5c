"""The page about the weeks: one file that needs nothing but itself."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from benchmarks.measure import machine
from benchmarks.unattended.pipeline import Run
from cxr_assets.evaluation.templates import environment

_MINUTE = 60


@dataclass
class Week:
    """What was planned for a week, and what came of it.

    Attributes:
        number: from 1 on.
        sunday: when the schedule is due.
        plan: what happens, and what must come of it.
        notes: what was seen besides.
        runs: retrainings that ended in it.
        decision: on the release, if one was made.
        served: version that the service answers with at its end.
        released: version that is released at its end.
        pinned: whether the service is pinned.
        age: days since a run made or confirmed the model that serves, when the next Sunday begins.
        expected: titles of the messages that it must have, each as often as it stands here.
        messages: titles of those that it has.
        wrong: what did not go as planned.
    """

    number: int
    sunday: datetime
    plan: str
    notes: list[str] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    decision: str | None = None
    served: str | None = None
    released: str | None = None
    pinned: bool = False
    age: float = 0
    expected: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def did(run: Run) -> list[str]:
    """What a run did, in a few words each."""
    found, lines = run.assets, []
    if raw := found.get("raw_kaggle"):
        lines.append(f"{raw['images']} images, {'unchanged' if raw['unchanged'] else 'changed'}")
    if processed := found.get("processed_dataset"):
        lines.append(f"dataset {'reused' if processed['reused'] else 'prepared'}")
    if run.trained:
        lines.append(f"{' and '.join(run.trained)} trained")
    elif "convnext_model" in found:
        lines.append("models reused")
    return lines


def write(path: Path, weeks: Sequence[Week], seconds: float) -> None:
    """Write the page.

    Args:
        path: of the page.
        weeks: that have ended.
        seconds: that all of them took.
    """
    template = environment("benchmarks.unattended").get_template("quarter.html.j2")
    versions = dict.fromkeys(week.served for week in weeks if week.served)
    path.write_text(
        template.render(
            weeks=weeks,
            did=did,
            models={version: number for number, version in enumerate(versions, 1)},
            minutes=seconds / _MINUTE,
            machine=machine(),
        )
    )
