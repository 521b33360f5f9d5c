"""What was decided on each release, kept for ever: ``<decisions>/<time>-<version>.json``."""

from collections.abc import Sequence
from datetime import UTC, timedelta
from typing import Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from cxr_assets.layout import Layout
from cxr_serving.model.atomic import write_file
from cxr_serving.model.bundle import VERSION
from cxr_serving.model.report import Clause


class DecisionError(Exception):
    """A record of a decision is broken; the message names it."""


class Decision(BaseModel):
    """One decision on a release.

    Attributes:
        version: what was decided on.
        champion: the released version at that time, if any.
        decided_at: in UTC.
        decision: ``released`` by the rule, ``held``, or ``promoted`` by a person.
        clauses: of the rule.
        by: who promoted it; None for the pipeline.
        because: the reason of that person, or what held it besides the clauses.
        pushed: URL of the commit on the Hub, if it was pushed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str = Field(pattern=rf"^{VERSION.pattern}$")
    champion: str | None
    decided_at: AwareDatetime
    decision: Literal["released", "held", "promoted"]
    clauses: list[Clause]
    by: str | None
    because: str | None
    pushed: str | None

    @property
    def failed(self) -> list[Clause]:
        """The clauses that are not fulfilled."""
        return [clause for clause in self.clauses if not clause.passed]

    @property
    def summary(self) -> str:
        """The decision in a few words, such as ``held: calibrated``."""
        if self.decision == "promoted":
            return f"promoted by {self.by}: {self.because}"
        reasons = [clause.name for clause in self.failed]
        if self.because:
            reasons.append(self.because)
        return f"held: {', '.join(reasons)}" if self.decision == "held" else "released"

    def says_the_same(self, other: Self) -> bool:
        """Whether only the time differs."""
        return self.model_copy(update={"decided_at": other.decided_at}) == other


def history(layout: Layout) -> list[Decision]:
    """All decisions, oldest first.

    Raises:
        DecisionError: a record is broken.
    """
    try:
        # glob() takes a folder that it cannot read for an empty one.
        paths = sorted(layout.decisions.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DecisionError(
            f"{layout.decisions} cannot be read ({error.strerror}): make it readable"
        ) from error
    found = []
    for path in (path for path in paths if path.suffix == ".json"):
        try:
            found.append(Decision.model_validate_json(path.read_bytes()))
        except (OSError, ValidationError) as error:
            raise DecisionError(
                f"{path} cannot be read ({' '.join(str(error).split())}): restore it from a backup "
                "or move it away"
            ) from error
    return found


def last_released(decisions: Sequence[Decision]) -> str | None:
    """The version that was released last, by the rule or a person, and not held since, if any."""
    for one in reversed(decisions):
        if one.decision != "held" and newest(decisions, one.version) == one:
            return one.version
    return None


def newest(decisions: Sequence[Decision], version: str) -> Decision | None:
    """The last decision on a version, if any."""
    return next((one for one in reversed(decisions) if one.version == version), None)


def record(layout: Layout, decision: Decision) -> Decision:
    """Write a decision, on disk when this returns, unless the last on its version says the same.

    If the last one lies in the future, because the clock was set back since, this one comes right
    after it: otherwise it would count as an older one, and be undone.

    Returns:
        The one that is on record.

    Raises:
        DecisionError: an earlier record is broken, or this one cannot be written.
    """
    earlier = history(layout)
    last = newest(earlier, decision.version)
    if last is not None and decision.says_the_same(last):
        return last
    if earlier and decision.decided_at <= earlier[-1].decided_at:
        after = earlier[-1].decided_at + timedelta(microseconds=1)
        decision = decision.model_copy(update={"decided_at": after})
    time = decision.decided_at.astimezone(UTC)
    path = layout.decisions / f"{time:%Y%m%dT%H%M%S%fZ}-{decision.version}.json"
    try:
        layout.decisions.mkdir(parents=True, exist_ok=True)
        write_file(path, (decision.model_dump_json(indent=2) + "\n").encode())
    except OSError as error:
        raise DecisionError(
            f"{path} cannot be written ({error.strerror}), so nothing is decided: make the folder "
            "writable, then do the same again"
        ) from error
    return decision
