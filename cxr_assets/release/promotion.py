"""Which release is the released one: by the rule, or by a person."""

import getpass
import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from cxr_assets import decisions
from cxr_assets.decisions import Decision
from cxr_assets.layout import Layout
from cxr_serving.model import hashes, store
from cxr_serving.model.bundle import RECORD_FILE, BundleRecord
from cxr_serving.model.report import Clause, MissingReport, Report

# Sends a release to the Hub and returns the URL of the commit.
Push = Callable[[Path], str]


class PromotionError(Exception):
    """A release cannot be promoted; the message says why and what there is."""


def decide(
    layout: Layout, directory: Path, push: Push | None = None, withheld: str | None = None
) -> Decision:
    """Release what fulfils every clause of its report; hold everything else.

    It is pushed, recorded and pointed to, in this order: after a kill in between, the next call
    does the rest, be it for this version or another. What is already released stays so.

    Args:
        layout: where releases and decisions lie.
        directory: the release.
        push: sends it to the Hub; None where none is configured.
        withheld: what holds the release besides the clauses, if anything.

    Returns:
        The decision that is on record; an earlier one where nothing has changed.

    Raises:
        BundleError: the release or the pointer to the released one is broken.
        DecisionError: an earlier decision on record is broken.
        UploadError: the release was not pushed; nothing is decided.
    """
    version = directory.name
    complete(layout, version)
    champion = store.read_pointer(layout.releases)
    standing = decisions.newest(decisions.history(layout), version)
    if champion == version and standing is not None and standing.decision != "held":
        decision = standing.model_copy(update={"decided_at": datetime.now(UTC)})
    else:
        clauses = _clauses(layout, version)
        held = bool(withheld) or not all(clause.passed for clause in clauses)
        decision = Decision(
            version=version,
            champion=champion if champion != version else None,
            decided_at=datetime.now(UTC),
            decision="held" if held else "released",
            clauses=clauses,
            by=None,
            because=withheld,
            pushed=None,
        )
    return _carry_out(layout, directory, decision, push)


def complete(layout: Layout, version: str) -> None:
    """Point to what was released last, if a kill came between its record and the pointer.

    A pointer that was deleted stays so for ``version``, which is then decided anew.

    Raises:
        BundleError: the pointer is broken.
        DecisionError: a decision on record is broken.
    """
    pointed = store.read_pointer(layout.releases)
    last = decisions.last_released(decisions.history(layout))
    if last in (None, pointed) or (pointed is None and last == version):
        return
    if (layout.releases / last).exists():
        store.write_pointer(layout.releases, last)


def promote(layout: Layout, version: str, because: str, push: Push | None = None) -> Decision:
    """Release a version by the decision of a person, whatever the rule says.

    Args:
        layout: where releases and decisions lie.
        version: of a release on disk: a held one, or an earlier one to return to.
        because: the reason, which is kept with the name of the user.
        push: sends it to the Hub; None where none is configured.

    Returns:
        The decision that is on record.

    Raises:
        PromotionError: there is no such release, it is damaged or released already, or no reason
            is given.
        BundleError: its record or the pointer to the released one is broken.
        DecisionError: an earlier decision on record is broken.
        UploadError: the release was not pushed; nothing is decided.
    """
    if not because.strip():
        raise PromotionError('a promotion needs a reason: --because "..."')
    known = store.versions(layout.releases)
    if version not in known:
        raise PromotionError(
            f"no release {version} in {layout.releases}; there "
            + (f"are: {', '.join(known)}" if known else "is none")
        )
    champion = store.read_pointer(layout.releases)
    if champion == version:
        raise PromotionError(f"{version} is released already")
    directory = layout.releases / version
    if fault := hashes.fault(directory, RECORD_FILE, BundleRecord.read(directory).files):
        raise PromotionError(
            f"{fault}: restore the release from a backup or, if it is the newest, materialise "
            "hf_release again"
        )
    decision = Decision(
        version=version,
        champion=champion,
        decided_at=datetime.now(UTC),
        decision="promoted",
        clauses=_clauses(layout, version),
        by=_user(),
        because=because.strip(),
        pushed=None,
    )
    return _carry_out(layout, directory, decision, push)


def _user() -> str:
    """Who runs this: a name, or the number of a user without one, as OpenShift runs containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # OSError since Python 3.13
        return str(os.getuid())


def _clauses(layout: Layout, version: str) -> list[Clause]:
    """From the report, or else from the release, in which sites are numbered."""
    try:
        return Report.read(layout.reports / version).clauses
    except MissingReport:
        return Report.read(layout.releases / version).clauses


def _carry_out(layout: Layout, directory: Path, decision: Decision, push: Push | None) -> Decision:
    if decision.decision != "held" and push is not None:
        decision = decision.model_copy(update={"pushed": push(directory)})
    on_record = decisions.record(layout, decision)
    if decision.decision != "held":
        store.write_pointer(layout.releases, directory.name)
    return on_record


def newest_held(layout: Layout) -> str | None:
    """The version that was held last, unless something was decided on it since: it is kept."""
    history = decisions.history(layout)
    for decision in reversed(history):
        if decision.decision == "held" and decisions.newest(history, decision.version) == decision:
            return decision.version
    return None


def shown(clauses: Sequence[Clause]) -> dict[str, str]:
    """Each clause by name, with its outcome."""
    return {one.name: f"{'passed' if one.passed else 'failed'}: {one.text}" for one in clauses}


def consequence(version: str) -> str:
    """What follows from a clause that is not fulfilled, and what a person can do."""
    return (
        "The release is made, but neither pushed nor served to those who follow releases. "
        f'To release it all the same: cxr release promote {version} --because "..."'
    )
