"""Reports in a third of the time, for tests of what is not about intervals, audits or plots."""

from io import BytesIO

import pytest
from matplotlib.figure import Figure
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from cxr_assets.evaluation import bootstrap, plots, shortcuts


def _blank(figure: Figure, title: str, synthetic: bool) -> bytes:
    """A picture in place of a drawing, another one for each title."""
    file, text = BytesIO(), PngInfo()
    text.add_text("Title", title)
    Image.new("L", (1, 1)).save(file, "PNG", pnginfo=text)
    return file.getvalue()


def draws(patch: pytest.MonkeyPatch) -> None:
    """Few draws for intervals, and small forests, until the patch is undone."""
    patch.setattr(bootstrap, "RESAMPLES", 40)
    patch.setattr(shortcuts, "_TREES", 5)


def reports(patch: pytest.MonkeyPatch) -> None:
    """The same, and blank plots."""
    draws(patch)
    patch.setattr(plots, "_png", _blank)
