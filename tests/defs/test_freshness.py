"""Model, report and release become stale when no run confirms them; a reused model is confirmed."""

from datetime import UTC, datetime, timedelta

import dagster as dg
from daemon import loaded
from dagster._core.test_utils import freeze_time
from dagster._daemon.freshness import FreshnessDaemon

from cxr_assets.defs.notifying import WATCHED


def test_an_asset_that_is_reused_every_week_stays_fresh_and_a_missed_week_makes_it_stale(
    instance,
):
    start = datetime.now(UTC)

    def states(days: int) -> set[str]:
        with freeze_time(start + timedelta(days=days)):
            for _ in FreshnessDaemon().run_iteration(context):
                pass
        records = instance.get_freshness_state_records([dg.AssetKey(name) for name in WATCHED])
        return {record.freshness_state.value for record in records.values()}

    def materialize(days: int) -> None:
        """As a run does that reuses everything: the version is that of the last week."""
        with freeze_time(start + timedelta(days=days)):
            for name in WATCHED:
                event = dg.AssetMaterialization(name, tags={"dagster/data_version": "same"})
                instance.report_runless_asset_event(event)

    with loaded(instance) as context:
        assert states(0) == {"UNKNOWN"}
        for week in range(3):
            materialize(7 * week)
            assert states(7 * week) == states(7 * week + 7) == {"PASS"}
        assert states(14 + 8) == {"WARN"}
        assert states(14 + 9) == {"FAIL"}
        materialize(14 + 10)
        assert states(14 + 10) == {"PASS"}
