"""From an image to the network's input: one way for preparation, training, report and service.

An image is decoded to 8-bit grey and resized to a square. It is never cropped or padded: a centre
crop cuts the edges of the lungs, and padding would show the network the shape of the frame, which
alone predicts the label in this data set.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, Self, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps

from cxr_serving.images import container
from cxr_serving.images.container import ImageError as ImageError
from cxr_serving.images.container import ImageTooLarge as ImageTooLarge
from cxr_serving.images.container import UndecodableImage as UndecodableImage
from cxr_serving.images.container import UnsupportedImage as UnsupportedImage

if TYPE_CHECKING:  # a service on a CPU has no torch
    import torch

CONFIG_FILE = "preprocessor_config.json"
# A cap against decompression bombs. The largest image of the Kermany set has about 5.9 megapixels,
# a detector of 43 cm with pixels of 0.1 mm 18.5.
MAX_PIXELS = 32_000_000
# Below these an image counts as blank: grey levels of 255 between the 5th and 95th percentiles, and
# the 95th percentile itself; a marker or a label does not move them. Of 5,216 radiographs of the
# Kermany set the flattest spans 60 (at 32 pixels; 68 at 224), and the darkest has its 95th
# percentile at 103. 12 bits mistaken for 16 end at 15, 14 bits at 63.
_LEAST_SPREAD = 16
_LEAST_BRIGHT = 64
_DEPTHS = (8, 10, 12, 14, 16)

# Mean and standard deviation of ImageNet, which both pretrained backbones were trained with.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# Pixels that are looked at to say how coloured a file is, on each side of a grid over it.
_SAMPLED = 64

_Images = TypeVar("_Images", npt.NDArray[Any], "torch.Tensor")


class Decoded(NamedTuple):
    """An image as a network sees it.

    Attributes:
        pixels: uint8 [size, size], grey.
        colour: how coloured the file is, in 0..1: the mean difference between the largest and the
            smallest of red, green and blue; 0 for a grey file.
    """

    pixels: npt.NDArray[np.uint8]
    colour: float


@dataclass(frozen=True)
class Preprocessing:
    """Parameters of the preprocessing; they travel in a bundle's ``preprocessor_config.json``.

    Attributes:
        size: side of the square network input, in pixels.
        mean: per-channel mean subtracted after scaling to [0, 1].
        std: per-channel standard deviation to divide by.
    """

    size: int
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def decode(self, source: Path | bytes | BinaryIO, max_pixels: int = MAX_PIXELS) -> Decoded:
        """Decode an image to grey pixels at the network's input size.

        JPEGs are decoded with the DCT scaling of libjpeg (draft mode) at no less than twice the
        input size, which reads large images faster and changes pixels little (a test bounds the
        difference). Of a coloured one the grey levels are its luma, as stored.

        A 16-bit PNG that uses fewer bits is scaled by those it uses (:func:`stored_bits`).

        Args:
            source: path, bytes or open binary file of a JPEG or PNG image of any bit depth.
            max_pixels: images with more pixels are rejected before they are decoded.

        Raises:
            UnsupportedImage: not a JPEG or PNG, a kind of JPEG that is not read, or an animation.
            ImageTooLarge: more than ``max_pixels`` pixels.
            UndecodableImage: truncated or otherwise broken, blank or nearly so.
            OSError: the path or file cannot be read.
        """
        if isinstance(source, Path):
            source = source.read_bytes()
        found = header(source if isinstance(source, bytes) else source.read(), max_pixels)
        try:
            with Image.open(BytesIO(found.pixels), formats=("JPEG", "PNG")) as image:
                if image.size != (found.width, found.height):
                    raise ValueError("another size than was checked")
                drafted = image.draft("YCbCr", (2 * self.size, 2 * self.size))
                image.load()
                # A drafted image may end within a pixel: its box says where.
                box = drafted[1] if drafted else None
                grey = self._resize(_to_grey(image, found.bits), box)
                colour = _colour(image)
        except MemoryError:
            raise
        except Exception as error:  # messages of Pillow may quote the file
            raise UndecodableImage("the image is broken or truncated") from error
        grey.getexif()[ExifTags.Base.Orientation] = found.orientation
        return Decoded(_shown(np.asarray(ImageOps.exif_transpose(grey))), colour)

    def resize(self, grey: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Resize an image that was decoded elsewhere, uint8 [H, W], to [size, size].

        Raises:
            UndecodableImage: it is blank or nearly so.
        """
        return _shown(np.asarray(self._resize(Image.fromarray(grey), None)))

    def _resize(
        self, grey: Image.Image, box: tuple[float, float, float, float] | None
    ) -> Image.Image:
        return grey.resize((self.size, self.size), Image.Resampling.BICUBIC, box)

    def normalise(self, images: _Images) -> _Images:
        """Turn grey images into network input.

        Args:
            images: array or tensor [N, H, W], uint8 in 0..255 or float32 on the same scale.

        Returns:
            float32 [N, 3, H, W] of the same kind, on the same device; the three channels are the
            same image, each with its own mean and standard deviation.
        """
        mean, std = (np.array(of, np.float32).reshape(3, 1, 1) for of in (self.mean, self.std))
        # (images / 255 - mean) / std in two steps.
        scale, shift = 1 / (255 * std), -mean / std
        if isinstance(images, np.ndarray):
            return images[:, np.newaxis] * scale + shift
        one = images.float()
        return one.new_tensor(shift).addcmul(one.unsqueeze(1), one.new_tensor(scale))

    def config(self) -> dict[str, Any]:
        """The ``preprocessor_config.json`` that makes ``AutoImageProcessor`` do the same."""
        return {
            "image_processor_type": "ViTImageProcessor",
            "do_convert_rgb": True,
            "do_resize": True,
            "size": {"height": self.size, "width": self.size},
            "resample": int(Image.Resampling.BICUBIC),
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": list(self.mean),
            "image_std": list(self.std),
        }

    @classmethod
    def read(cls, directory: Path) -> Self:
        """Read the parameters from a bundle's ``preprocessor_config.json``.

        Raises:
            ValueError: the file asks for another preprocessing.
        """
        path = directory / CONFIG_FILE
        config = json.loads(path.read_text(encoding="utf-8"))
        preprocessing = cls(
            size=config["size"]["height"],
            mean=_triple(config["image_mean"]),
            std=_triple(config["image_std"]),
        )
        if config != preprocessing.config():
            raise ValueError(
                f"{path} describes a preprocessing that this service does not do; "
                "export the bundle again with this version of the pipeline"
            )
        return preprocessing

    def write(self, directory: Path) -> None:
        """Write ``preprocessor_config.json`` into ``directory``."""
        (directory / CONFIG_FILE).write_text(
            json.dumps(self.config(), indent=2) + "\n", encoding="utf-8"
        )


def header(data: bytes, max_pixels: int = MAX_PIXELS) -> container.Container:
    """The header of a JPEG or PNG file, read before its pixels are decoded.

    Raises:
        UnsupportedImage: not a JPEG or PNG, a kind of JPEG that is not read, or an animation.
        ImageTooLarge: more than ``max_pixels`` pixels.
        UndecodableImage: empty, truncated or otherwise broken before its pixels.
    """
    found = container.read(data)
    if found.width * found.height > max_pixels:
        raise ImageTooLarge(
            f"the image has {found.width} x {found.height} pixels; "
            f"at most {max_pixels:,} are decoded"
        )
    return found


def stored_bits(most: int, declared: int) -> int:
    """How many of the 16 bits of a sample an image uses, which sets its white.

    Detectors give 10, 12, 14 or 16 bits, and many programs write them to a 16-bit PNG as they are,
    though the standard wants them scaled to 16. What is declared decides where the largest value
    agrees; without a declaration the largest value alone: the least depth of a detector that
    holds it.

    Args:
        most: the largest value in the image.
        declared: significant bits by the PNG's sBIT chunk, 16 without one.
    """
    if declared < 16:
        return max(declared, 8) if most < 2**declared else 16
    return next(bits for bits in _DEPTHS if most < 2**bits)


def _to_grey(image: Image.Image, declared: int) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey: convert("L") would clip at 255 instead of scaling
        values = np.asarray(image)
        unused = stored_bits(int(values.max()), declared) - 8
        return Image.fromarray((values >> unused).astype(np.uint8))
    if image.mode == "YCbCr":
        return image.getchannel("Y")  # the luma of the file: what libjpeg itself gives for grey
    return image.convert("L")


def _colour(image: Image.Image) -> float:
    """See :class:`Decoded`."""
    if image.mode in ("L", "LA", "1") or image.mode.startswith("I"):
        return 0.0
    size = (min(image.width, _SAMPLED), min(image.height, _SAMPLED))
    sampled = np.asarray(image.resize(size, Image.Resampling.NEAREST).convert("RGB"), np.int16)
    return float((sampled.max(axis=2) - sampled.min(axis=2)).mean() / 255)


def _shown(grey: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """``grey``, unless it is blank.

    Raises:
        UndecodableImage: it is blank or nearly so.
    """
    below = np.bincount(grey.ravel(), minlength=256).cumsum()
    dark, bright = (
        int(level) for level in below.searchsorted((0.05 * grey.size, 0.95 * grey.size))
    )
    if bright - dark < _LEAST_SPREAD or bright < _LEAST_BRIGHT:
        raise UndecodableImage(
            "the image is blank or nearly so: nine tenths of its pixels lie between "
            f"{dark} and {bright} of 255; send one that uses the range from black to white"
        )
    return grey


def _triple(values: Sequence[float]) -> tuple[float, float, float]:
    first, second, third = values
    return first, second, third
