"""What people are notified of: each event once, by a message that names no patient."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest
import receivers
from dagster._core.definitions.freshness import FreshnessState, FreshnessStateChange

from cxr_assets import decisions, drift
from cxr_assets.decisions import Decision
from cxr_assets.definitions import definitions
from cxr_assets.defs import notifying
from cxr_assets.learning.history import DivergedError
from cxr_assets.notifications import NotificationError
from cxr_assets.settings import Settings
from cxr_serving.model.report import Clause

VERSION = "20260104T030000Z-0123abcd"


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """An empty Dagster instance, in memory."""
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def taken(tmp_path, monkeypatch) -> Iterator[list[dict[str, Any]]]:
    """What the receiver takes."""
    with receivers.webhook() as (url, taken):
        settings = Settings(
            data_root=tmp_path, notify_urls=url, dagster_url="http://ward:3000", service_url=None
        )
        monkeypatch.setattr(notifying, "settings", settings)
        yield taken


def tick(instance: dg.DagsterInstance, name: str, cursor: str | None) -> tuple[str | None, str]:
    """The next cursor, and what the tick says, by Dagster's evaluation of the sensor."""
    context = dg.build_sensor_context(
        instance, cursor=cursor, repository_def=definitions.get_repository_def()
    )
    data = definitions.resolve_sensor_def(name).evaluate_tick(context)
    return data.cursor, data.skip_message or ""


def test_a_failed_run_is_one_message_with_link_step_and_error(instance, taken):
    @dg.op
    def convnext_model_fit() -> None:
        raise DivergedError("the loss is not finite in epoch 3: lower model.lr")

    @dg.job
    def retrain() -> None:
        convnext_model_fit()

    done = retrain.execute_in_process(instance=instance, raise_on_error=False)
    context = dg.build_run_status_sensor_context(
        "notify_failed_run", done.get_run_failure_event(), instance, done.dagster_run
    ).for_run_failure()
    notifying.notify_failed_run(context)
    (message,) = taken
    assert message["title"] == "retrain failed"
    assert message["message"].splitlines() == [
        f"Run {done.run_id[:8]} of retrain failed.",
        "convnext_model_fit: DivergedError: the loss is not finite in epoch 3: lower model.lr",
        f"http://ward:3000/runs/{done.run_id}",
    ]


def test_a_killed_run_is_a_message_without_a_step(instance, taken):
    run = instance.create_run_for_job(definitions.resolve_job_def("retrain"))
    event = instance.report_run_failed(run, "The process of this run is gone: it was killed")
    context = dg.build_run_status_sensor_context("notify_failed_run", event, instance, run)
    notifying.notify_failed_run(context.for_run_failure())
    assert "The process of this run is gone: it was killed" in taken[0]["message"]


def decided(settings: Settings, decision: str, seconds: int) -> None:
    at = datetime.now(UTC) + timedelta(seconds=seconds)
    clause = Clause(
        name="no_site_worse", passed=False, figure=0.5, interval=None, limit=0.1,
        text="St. Mary's loses 0.5 of accuracy",
    )  # fmt: skip
    decisions.record(
        settings.layout,
        Decision(version=VERSION, champion=None, decided_at=at, decision=decision,
                 clauses=[clause], by=None, because=None, pushed=None),
    )  # fmt: skip


def test_a_held_release_is_one_message_that_names_no_site(instance, taken):
    decided(notifying.settings, "held", -1)
    name = "notify_held_release"
    cursor, _ = tick(instance, name, None)
    assert not taken, "held before anybody was to be notified"
    decided(notifying.settings, "promoted", 1)
    cursor, _ = tick(instance, name, cursor)
    assert not taken
    decided(notifying.settings, "held", 2)
    cursor, _ = tick(instance, name, cursor)
    decided(notifying.settings, "held", 3)  # the same decision of the next week
    tick(instance, name, cursor)
    (message,) = taken
    assert message["title"] == f"Release {VERSION} is held"
    assert "held: no_site_worse" in message["message"]
    assert f"cxr release promote {VERSION}" in message["message"]
    assert "St. Mary" not in message["message"]


def fresh(instance: dg.DagsterInstance, asset: str, state: str) -> None:
    change = FreshnessStateChange(
        key=dg.AssetKey(asset),
        new_state=FreshnessState(state),
        previous_state=FreshnessState.UNKNOWN,
        state_change_timestamp=datetime.now(UTC).timestamp(),
    )
    instance._report_runless_asset_event(change)


def test_a_missed_week_is_one_message_until_all_is_fresh_again(instance, taken):
    name, cursor = "notify_stale_model", None
    for asset, state in (
        ("convnext_model", "WARN"),
        ("convnext_model", "FAIL"),
        ("metrics_report", "FAIL"),
        ("hf_release", "FAIL"),
        ("convnext_model", "PASS"),
        ("metrics_report", "PASS"),
        ("hf_release", "PASS"),
    ):
        fresh(instance, asset, state)
        for _ in range(2):
            cursor, said = tick(instance, name, cursor)
    assert said == "stale: none"
    (message,) = taken
    assert "For 9 days, no run has made or confirmed convnext_model." in message["message"]
    fresh(instance, "convnext_model", "FAIL")
    tick(instance, name, cursor)
    assert len(taken) == 2


def test_a_drift_that_lasts_is_one_message(instance, taken, monkeypatch):
    settings = notifying.settings.model_copy(update={"service_url": "http://ward:8000"})
    monkeypatch.setattr(notifying, "settings", settings)
    monkeypatch.setattr(drift, "measured", lambda url: {"intensity": 0.4, "predictions": 0.1})
    monkeypatch.setattr(drift, "LASTING", timedelta(0))
    cursor = None
    for _ in range(4):
        cursor, said = tick(instance, "notify_drift", cursor)
    assert said == "PSI: intensity 0.40, predictions 0.10"
    (message,) = taken
    assert "PSI intensity 0.40, predictions 0.10; the limit is 0.25" in message["message"]


def test_a_service_that_does_not_answer_is_no_drift(instance, taken, monkeypatch):
    settings = notifying.settings.model_copy(update={"service_url": "http://me:s3cret@127.0.0.1:9"})
    monkeypatch.setattr(notifying, "settings", settings)
    cursor, said = tick(instance, "notify_drift", "acted")
    assert "the service does not answer" in said
    assert "s3cret" not in said
    assert cursor == "acted"
    assert not taken


def test_a_message_that_is_not_delivered_fails_no_tick(instance, taken, monkeypatch):
    url = f"json://127.0.0.1:9/{receivers.SECRET}?retry=0"
    monkeypatch.setattr(notifying, "settings", Settings(notify_urls=url))
    fresh(instance, "convnext_model", "FAIL")
    cursor, said = tick(instance, "notify_stale_model", None)
    assert (cursor, said) == ("convnext_model", "stale: convnext_model")


def test_a_wrong_address_is_shown_at_the_next_tick_and_not_only_at_an_event(instance, monkeypatch):
    monkeypatch.setattr(notifying, "settings", Settings(notify_urls=f"x://{receivers.SECRET}"))
    with pytest.raises(NotificationError, match="CXR_NOTIFY_URLS, address 1 is no address"):
        tick(instance, "notify_stale_model", None)


def test_nothing_is_on_where_nobody_is_to_be_notified():
    names = {sensor.name for sensor in notifying.notifications}
    assert names == {
        "notify_failed_run", "notify_held_release", "notify_stale_model", "notify_drift",
    }  # fmt: skip
    for name in names:
        sensor = definitions.resolve_sensor_def(name)
        assert sensor.default_status is dg.DefaultSensorStatus.STOPPED


def test_they_are_on_where_somebody_is(monkeypatch):
    running = dg.DefaultSensorStatus.RUNNING
    monkeypatch.setattr(notifying, "settings", Settings(notify_urls="json://host"))
    assert notifying._status() is running
    assert notifying._status("http://serving:8000") is running
    assert notifying._status(None) is not running
