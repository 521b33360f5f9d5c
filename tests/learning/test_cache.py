from pathlib import Path

import numpy as np

from cxr_assets.layout import Layout
from cxr_assets.learning import cache

ROWS = {f"{image:064x}": np.full(3, image, np.float32) for image in range(18)}


def silent(line: str) -> None:
    pass


def test_forgotten_images_leave_every_file_at_once_and_the_others_stay(tmp_path: Path) -> None:
    layout, images = Layout(tmp_path), list(ROWS)
    assert cache.forget(layout, images, silent) == 0, "there are none yet"
    layout.embeddings.mkdir()
    files = [layout.embeddings / f"{name * 32}.safetensors" for name in "ab"]
    for path in files:
        cache.save(path, ROWS)
    assert cache.forget(layout, images[:3], silent) == 6
    for path in files:
        left = cache.load(path, silent)
        assert list(left) == images[3:]
        assert all(np.array_equal(left[image], ROWS[image]) for image in left)
    files[0].write_bytes(b"cut")
    cache.forget(layout, images[:4], silent)
    assert list(layout.embeddings.glob("*.safetensors")) == files[1:], "it might hold them"
    assert len(cache.load(files[1], silent)) == 14
    cache.forget(layout, images, silent)
    assert not list(layout.embeddings.glob("*.safetensors"))
