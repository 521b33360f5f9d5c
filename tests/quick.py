"""Reports in a third of the time, for tests of what is not about intervals, audits or plots."""

from io import BytesIO
from typing import Any

import pytest
from PIL import Image

from cxr_assets.evaluation import bootstrap, plots, shortcuts


def _blank(*drawn: Any) -> bytes:
    """A picture in place of a drawing."""
    file = BytesIO()
    Image.new("L", (1, 1)).save(file, "PNG")
    return file.getvalue()


def draws(patch: pytest.MonkeyPatch) -> None:
    """Few draws for intervals, and small forests, until the patch is undone."""
    patch.setattr(bootstrap, "RESAMPLES", 40)
    patch.setattr(shortcuts, "_TREES", 5)


def reports(patch: pytest.MonkeyPatch) -> None:
    """The same, and blank plots."""
    draws(patch)
    patch.setattr(plots, "_png", _blank)
