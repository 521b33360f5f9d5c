"""Messages to people by apprise: mail, chat, webhooks. An address is a secret: nothing shows it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cxr_assets.progress import Progress

if TYPE_CHECKING:
    from apprise import AppriseAsset, NotifyBase

# Dagster gives a tick of a sensor 60 seconds.
_SECONDS = 45.0
_RETRIES = 2
_WAIT = 3.0


class NotificationError(Exception):
    """Settings are wrong; the message names the place of an address, never the address."""


@dataclass(frozen=True)
class Receivers:
    """Who is notified.

    Attributes:
        urls: addresses as apprise documents them, separated by white space.
        file: with one address per line; lines that begin with ``#`` are comments.
    """

    urls: str | None = field(repr=False)
    file: Path | None

    def __bool__(self) -> bool:
        return bool(self.urls or self.file)

    def check(self) -> None:
        """Read the addresses, without sending anything.

        Raises:
            NotificationError: the file cannot be read or holds none, or an address is invalid.
        """
        self._services()

    def send(self, title: str, body: str, log: Progress) -> None:
        """Send a message in plain text to all; one that is not delivered is reported, not raised.

        An address is tried a few times, unless it sets ``?retry=`` itself, for 45 seconds in total.

        Args:
            title: one line.
            body: a few lines, in plain text.
            log: called with a line for each address that did not take the message.

        Raises:
            NotificationError: as :meth:`check`.
        """
        import apprise

        receivers = apprise.Apprise(asset=_asset())
        for service in self._services():
            receivers.add(service)
        result = receivers.notify(body, title, body_format="text", timeout=_SECONDS)
        if not result:
            failed = ", ".join(one.name for one in result.results if not one)
            log(
                f"the message {title!r} was not delivered to: {failed or 'anybody'}. To see why: "
                "apprise -v --title test --body test ADDRESS"
            )

    def _services(self) -> list[NotifyBase]:
        import apprise

        # Some of its plugins log addresses with their tokens.
        logging.getLogger("apprise").disabled = True
        asset, found = _asset(), []
        for place, url in self._addresses():
            service = apprise.Apprise.instantiate(url, asset=asset)
            if service is None:
                raise NotificationError(
                    f"{place} is no address that apprise knows, or lacks a part: see "
                    "https://appriseit.com/services/ for how it is written"
                )
            found.append(service)
        return found

    def _addresses(self) -> list[tuple[str, str]]:
        """Each address, after where it stands."""
        found = [
            (f"CXR_NOTIFY_URLS, address {number}", url)
            for number, url in enumerate((self.urls or "").split(), 1)
        ]
        if self.file is None:
            return found
        try:
            lines = self.file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise NotificationError(
                f"CXR_NOTIFY_FILE, {self.file}, cannot be read ({type(error).__name__}): it "
                "must be a text file with one address per line"
            ) from None
        written = [
            (f"CXR_NOTIFY_FILE, line {number}", line.strip())
            for number, line in enumerate(lines, 1)
            if line.strip() and not line.lstrip().startswith("#")
        ]
        if not written:
            raise NotificationError(f"CXR_NOTIFY_FILE, {self.file}, holds no address")
        return found + written


def _asset() -> AppriseAsset:
    import apprise

    return apprise.AppriseAsset(
        app_id="cxr",
        app_desc="cxr retraining",
        default_service_retry=_RETRIES,
        default_service_wait=_WAIT,
    )
