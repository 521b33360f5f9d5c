"""The one way a film becomes numbers: used by preparation, training, evaluation and serving alike.

A film is decoded to 8-bit grey and resized to a square. It is never cropped or padded: a centre
crop cuts the edges of the lungs, and padding would show the network the shape of the frame, which
alone predicts the label in this data set.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

if TYPE_CHECKING:  # a process that only decodes films needs no torch
    import torch

CONFIG_FILE = "preprocessor_config.json"
FORMATS = ("JPEG", "PNG")
# A cap against decompression bombs. The largest film of the Kermany set has about 5.9 megapixels, a
# detector of 43 cm with pixels of 0.1 mm 18.5.
MAX_PIXELS = 32_000_000

# Mean and standard deviation of ImageNet, which both pretrained backbones were trained with.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_Films = TypeVar("_Films", npt.NDArray[Any], "torch.Tensor")


class FilmError(ValueError):
    """A film cannot be used; the message says why."""


class UnsupportedFilm(FilmError):
    """The bytes are not a single-frame JPEG or PNG image."""


class FilmTooLarge(FilmError):
    """The image has more pixels than are decoded."""


class UndecodableFilm(FilmError):
    """The image is of a supported format, but broken."""


@dataclass(frozen=True)
class Preprocessing:
    """Parameters of the preprocessing; they travel in a bundle's ``preprocessor_config.json``.

    Attributes:
        size: side of the square network input, in pixels.
        mean: per-channel mean subtracted after scaling to [0, 1].
        std: per-channel standard deviation divided by.
    """

    size: int
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def decode(
        self, source: Path | bytes | BinaryIO, max_pixels: int = MAX_PIXELS
    ) -> npt.NDArray[np.uint8]:
        """Decode a film to grey pixels at the network's input size.

        JPEGs are decoded with the DCT scaling of libjpeg (draft mode) at no less than twice the
        input size, which reads large films faster and changes pixels little (a test says how much).

        Args:
            source: path, bytes or open binary file of a JPEG or PNG image of any bit depth.
            max_pixels: images with more pixels are refused before they are decoded.

        Returns:
            uint8 array of shape [size, size].

        Raises:
            UnsupportedFilm: not a JPEG or PNG, or an animated one.
            FilmTooLarge: more than ``max_pixels`` pixels.
            UndecodableFilm: truncated or otherwise broken.
        """
        stream = BytesIO(source) if isinstance(source, bytes) else source
        try:
            image = Image.open(stream, formats=FORMATS)
        except Image.DecompressionBombError as error:
            raise FilmTooLarge(str(error)) from error
        except (OSError, SyntaxError, ValueError) as error:
            if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError):
                raise
            raise UnsupportedFilm("not a JPEG or PNG image") from error
        with image:
            width, height = image.size
            if width * height > max_pixels:
                raise FilmTooLarge(
                    f"the image has {width} x {height} pixels; at most {max_pixels:,} are decoded"
                )
            if getattr(image, "is_animated", False):
                raise UnsupportedFilm("an animated image is not a film")
            try:
                drafted = image.draft("L", (2 * self.size, 2 * self.size))
                image.load()
                # A drafted image ends in a part of a pixel: its box says how much of it is film.
                box = drafted[1] if drafted else None
                grey = self._resize(_to_grey(image), box)
                grey.info = image.info
                return np.asarray(ImageOps.exif_transpose(grey))
            except Exception as error:
                raise UndecodableFilm(f"the image is broken: {error}") from error

    def resize(self, grey: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Bring a film that was decoded by other means, uint8 [H, W], to [size, size]."""
        return np.asarray(self._resize(Image.fromarray(grey), None))

    def _resize(
        self, grey: Image.Image, box: tuple[float, float, float, float] | None
    ) -> Image.Image:
        return grey.resize((self.size, self.size), Image.Resampling.BICUBIC, box)

    def normalise(self, films: _Films) -> _Films:
        """Turn grey films into network input.

        Args:
            films: array or tensor [N, H, W], uint8 in 0..255, or float32 on the same scale.

        Returns:
            float32 [N, 3, H, W] of the same kind, on the same device; the three channels are the
            same film, each with its own mean and standard deviation.
        """
        mean, std = (np.array(of, np.float32).reshape(3, 1, 1) for of in (self.mean, self.std))
        # (films / 255 - mean) / std in two steps.
        scale, shift = 1 / (255 * std), -mean / std
        if isinstance(films, np.ndarray):
            return films[:, np.newaxis] * scale + shift
        one = films.float()
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
            ValueError: the file asks for something this preprocessing does not do.
        """
        path = directory / CONFIG_FILE
        config = json.loads(path.read_text())
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
        (directory / CONFIG_FILE).write_text(json.dumps(self.config(), indent=2) + "\n")


def _to_grey(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey: convert("L") would clip at 255 instead of scaling
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode == "P":  # palette entries may carry transparency, which grey cannot hold
        image = image.convert("RGBA")
    return image.convert("L")


def _triple(values: Sequence[float]) -> tuple[float, float, float]:
    first, second, third = values
    return first, second, third
