from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from radiographs import handmade

from cxr_assets.radiographs.decoding import Decoder, DecodingError
from cxr_serving.model.preprocessing import Preprocessing


def digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


def test_a_png_holds_the_pixels_that_its_hash_is_of(tmp_path):
    handmade.write(source := tmp_path / "a.png", 1)
    with Decoder(32) as decoder:
        written = decoder.write(source, digest(source), tmp_path / "target.png")
    with Image.open(tmp_path / "target.png") as image:
        pixels = np.asarray(image)
    np.testing.assert_array_equal(pixels, Preprocessing(32).decode(source).pixels)
    assert (written.pixels, written.reason) == (sha256(pixels.tobytes()).hexdigest(), None)


def test_a_broken_or_missing_image_is_left_out_and_a_changed_one_is_an_error(tmp_path):
    handmade.write(source := tmp_path / "a.png", 1)
    before = digest(source)
    source.write_bytes(source.read_bytes()[:200])
    with Decoder(32) as decoder:
        written = decoder.write(source, digest(source), tmp_path / "target.png")
        assert written.pixels is None
        assert str(written.reason).startswith("corrupt: ")
        assert not (tmp_path / "target.png").exists()
        missing = decoder.write(tmp_path / "b.png", before, tmp_path / "target.png")
        assert missing.reason == "corrupt: the file cannot be read: No such file or directory"
        with pytest.raises(DecodingError, match=r"a\.png has changed .*materialise raw_kaggle"):
            decoder.write(source, before, tmp_path / "target.png")
