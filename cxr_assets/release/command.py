"""``cxr release promote``: the released version, by the decision of a person."""

import sys
from functools import partial

from cxr_assets import exchange
from cxr_assets.decisions import DecisionError
from cxr_assets.release import promotion
from cxr_assets.release.promotion import PromotionError
from cxr_assets.release.upload import UploadError, configured
from cxr_assets.settings import SettingsError, load
from cxr_serving.model.bundle import BundleError
from cxr_serving.model.report import ReportError


def promote(version: str, because: str) -> None:
    """Promote a version of the data root that is configured, and say what was done."""
    try:
        settings = load()
        hub = configured(settings.hf_repo)
        with exchange.exchanged(settings.layout, partial(print, file=sys.stderr, flush=True)):
            decision = promotion.promote(settings.layout, version, because, hub.push)
    except (
        SettingsError, PromotionError, BundleError, DecisionError, ReportError, UploadError,
    ) as error:  # fmt: skip
        sys.exit(f"error: {error}")
    sys.stdout.write(f"{version} is {decision.summary}\n{decision.pushed or hub.reason}\n")
