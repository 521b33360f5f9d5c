"""Errors have one shape; test_middleware.py has those of a whole application."""

import pytest

from cxr_serving.http import errors
from cxr_serving.images.dicom import DicomUnavailable
from cxr_serving.model.gate import DESCRIPTIONS
from cxr_serving.model.preprocessing import (
    ImageError,
    ImageTooLarge,
    UndecodableImage,
    UnsupportedImage,
)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UnsupportedImage, "unsupported_image"),
        (ImageTooLarge, "too_many_pixels"),
        (UndecodableImage, "undecodable_image"),
        (DicomUnavailable, "dicom_unavailable"),
    ],
)
def test_every_image_error_has_a_code_and_keeps_its_message(
    error: type[ImageError], code: str
) -> None:
    detail = errors.image_detail(error("why"))
    assert (detail.code, detail.message) == (code, "why")


def test_rejected_image_has_the_reasons_and_their_sentences() -> None:
    detail = errors.image_detail(errors.ImageRejected(("colour", "inverted")))
    assert (detail.code, detail.reasons) == ("image_rejected", ["colour", "inverted"])
    assert detail.message == f"{DESCRIPTIONS['colour']} {DESCRIPTIONS['inverted']}"


def test_responses_describe_the_one_shape() -> None:
    assert errors.responses(401, 429) == {
        401: {"model": errors.ErrorAnswer},
        429: {"model": errors.ErrorAnswer},
    }
