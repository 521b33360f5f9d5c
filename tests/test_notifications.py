import logging
from pathlib import Path

import pytest
import receivers

from cxr_assets import notifications
from cxr_assets.notifications import NotificationError, Receivers
from cxr_assets.settings import Settings

BODY = "fit: TrainingError: <b>not finite</b>\nhttp://localhost:3000/runs/1"


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifications, "_WAIT", 0.01)


def test_a_message_reaches_a_webhook_and_a_mailbox_in_plain_text(tmp_path: Path) -> None:
    file = tmp_path / "receivers"
    with receivers.webhook() as (hook, posted), receivers.mail_server() as (box, mailed):
        file.write_text(f"# the ward\n\n{box}\n")
        Receivers(hook, file).send("retrain failed", BODY, pytest.fail)
    assert [(one["title"], one["message"]) for one in posted] == [("retrain failed", BODY)]
    (mail,) = mailed
    assert mail["Subject"] == "retrain failed"
    assert mail["To"] == "doctor@example.org"
    text = mail.get_body(("plain",))
    assert text is not None
    assert text.get_content().split() == BODY.split()


def test_a_receiver_that_was_busy_gets_it_a_moment_later_and_only_once() -> None:
    with receivers.webhook(failures=2) as (busy, late), receivers.webhook() as (well, early):
        Receivers(f"{busy} {well}", None).send("held", "body", pytest.fail)
    assert len(late) == len(early) == 1


def test_an_undelivered_message_is_reported_without_the_address_and_reaches_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    logged: list[str] = []
    caplog.set_level(logging.INFO)
    with receivers.webhook(failures=99) as (down, _), receivers.webhook() as (well, taken):
        Receivers(f"{down} {well}", None).send("held", "body", logged.append)
    assert len(taken) == 1
    (line,) = logged
    assert line.startswith("the message 'held' was not delivered to: JSON. To see why: apprise -v")
    assert receivers.SECRET not in line + caplog.text


@pytest.mark.parametrize(
    ("urls", "content", "message"),
    [
        (f"json://host {receivers.SECRET}", None, "CXR_NOTIFY_URLS, address 2 is no address"),
        (f"slack://{receivers.SECRET}", None, "CXR_NOTIFY_URLS, address 1 is no address"),
        (None, f"# ours\nnever://{receivers.SECRET}", "CXR_NOTIFY_FILE, line 2 is no address"),
        (None, "# nobody\n", "holds no address"),
        (None, None, r"cannot be read \(FileNotFoundError\)"),
    ],
)
def test_wrong_addresses_are_named_by_their_place(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    urls: str | None,
    content: str | None,
    message: str,
) -> None:
    file = tmp_path / "receivers"
    if content is not None:
        file.write_text(content)
    caplog.set_level(logging.INFO)
    with pytest.raises(NotificationError, match=message) as caught:
        Receivers(urls, None if urls else file).check()
    assert receivers.SECRET not in str(caught.value) + caplog.text


def test_no_representation_shows_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXR_NOTIFY_URLS", f"json://host/{receivers.SECRET}")
    settings = Settings()
    assert settings.receivers
    assert receivers.SECRET not in f"{settings!r} {settings} {settings.receivers!r}"
    assert not Receivers(None, None)
