"""What the page shows, with the real service behind it."""

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import reports
from browser import Page
from dicoms import dicom
from PIL import Image
from selenium.webdriver import Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.select import Select

from cxr_serving.model import explanation
from cxr_serving.model.explanation import grad_cam, overlay
from cxr_serving.model.gate import DESCRIPTIONS, Repair

FIVE = ("effusion", "lung_mass", "nodule", "scar", "tuberculosis")


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def test_result_has_the_numbers_of_predict(page: Page, image: bytes) -> None:
    page.classify("image.jpeg", image)
    answer = page.post("/predict", image)
    names = ["Bacterial pneumonia", "Normal", "Viral pneumonia"]
    names[answer["pred"]] += " (most probable)"
    assert page.bars() == [
        [name, percent(share)] for name, share in zip(names, answer["probs"], strict=True)
    ]
    label = answer["label"].replace("_", " ")
    assert f"{label} {percent(max(answer['probs']))}" in page.text("verdict").replace(",", "")
    assert answer["uncertain"]
    assert page.text("verdict").startswith("Uncertain: ")
    assert "Below 70.0 %" in page.text("verdict")
    assert answer["model"]["version"] in page.text("maker")
    assert "trained on synthetic images" in page.text("maker")
    assert page.text("news").startswith("Result for image.jpeg: ")


def test_model_is_described_and_the_disclaimer_stays_visible(page: Page, image: bytes) -> None:
    answer = page.server.client.get("/model").json()
    assert answer["model"]["version"] in page.text("facts")
    assert "the newest model" in page.text("facts")
    assert page.get("synthetic").is_displayed()
    assert page.get("untested").is_displayed()
    assert "flags what it rejects: 0.8 % of 250 validation images" in page.text("facts")
    page.classify("image.jpeg", image)
    page.run("scrollTo(0, document.body.scrollHeight)")
    banner = page.browser.find_element(By.CLASS_NAME, "banner")
    assert banner.text == answer["disclaimer"]
    assert page.run("return scrollY") > 0
    assert page.run("return arguments[0].getBoundingClientRect().top", banner) == 0


def test_class_activation_map_is_that_of_the_service_in_the_same_colours(
    page: Page, image: bytes
) -> None:
    answer = page.post("/predict?cam=true", image)
    page.classify("image.jpeg", image)
    for label, coarse in answer["cam"].items():
        Select(page.get("explained")).select_by_value(label)
        assert f"“{label.replace('_', ' ')}”" in page.text("explanation")
        painted = page.map()
        cam = grad_cam(np.array(coarse, np.float32), len(painted))
        np.testing.assert_allclose(painted[..., 3], 255 * cam, atol=1)
        # Over a black image, at the strength that both have by default.
        over_black = 0.6 * painted[..., :3] * (painted[..., 3:] / 255)
        with Image.open(io.BytesIO(overlay(np.zeros(cam.shape, np.uint8), cam))) as png:
            np.testing.assert_allclose(over_black, np.asarray(png), atol=2)


def test_colours_of_the_page_are_those_of_the_service(page: Page) -> None:
    colours = page.browser.execute_async_script(
        "const done = arguments[0]; import('./static/cam.js').then((cam) => done(cam.COLOURS))"
    )
    assert colours == [list(colour) for colour in explanation._COLOURS]
    scale = page.get("scale").value_of_css_property("background-image")
    assert re.findall(r"rgb\((.*?)\)", scale) == [", ".join(map(str, c)) for c in colours]


def test_image_is_uploaded_once_whatever_is_looked_at(page: Page, image: bytes) -> None:
    before = page.uploads()
    page.classify("image.jpeg", image)
    maps = []
    for label in page.post("/predict", image)["probabilities"]:
        Select(page.get("explained")).select_by_value(label)
        maps.append(page.map())
        page.get("opacity").send_keys(Keys.ARROW_LEFT)
    assert not np.array_equal(maps[0], maps[1])
    assert not np.array_equal(maps[1], maps[2])
    page.classify("second.jpeg", image)
    # One for each image, and between them the one that this test sent itself.
    page.until(lambda: page.uploads() == [*before, *["/predict"] * 3])


def test_strength_of_the_map_is_that_of_the_slider(page: Page, image: bytes) -> None:
    page.classify("image.jpeg", image)
    page.until(lambda: page.get("stack").rect["height"] > 0)
    assert page.get("cam").rect == page.get("picture").rect
    assert page.get("cam").rect["width"] / page.get("cam").rect["height"] == pytest.approx(
        150 / 120, rel=0.01
    )
    assert page.get("cam").value_of_css_property("opacity") == "0.6"
    page.get("opacity").send_keys(Keys.ARROW_LEFT)
    assert page.get("cam").value_of_css_property("opacity") == "0.55"
    page.get("opacity").send_keys(Keys.HOME)
    assert page.get("cam").value_of_css_property("opacity") == "0"
    assert page.text("opacity-text") == "0 %"


def test_model_without_maps_still_classifies(page: Page, image: bytes) -> None:
    """The service's answer is replaced on its way by that of a model without maps."""
    page.run(
        "const real = window.fetch;"
        "window.fetch = async (...request) => {"
        "  const answer = await real(...request);"
        "  if (!request[0].startsWith('predict')) return answer;"
        "  return Response.json({...await answer.json(), cam: null});"
        "}"
    )
    page.choose("image.jpeg", image)
    page.until(lambda: page.text("result-heading") == "Result for image.jpeg")
    assert page.text("explanation") == "This model has no class activation maps."
    assert not page.get("explained").is_displayed()
    assert not page.get("cam").is_displayed()
    assert page.get("picture").is_displayed()


def test_rotated_image_is_rejected_above_the_probabilities_and_shown_as_it_would_be_repaired(
    page: Page, image: bytes, rotated: bytes, coloured: bytes
) -> None:
    page.classify("image.jpeg", image)
    upright = page.bars()
    assert not page.get("rejected").is_displayed()
    assert not page.get("repaired").is_displayed()

    page.classify("rotated.png", rotated)
    answer = page.post("/predict?cam=true", rotated)
    assert page.text("rejected").startswith("This image is rejected")
    assert page.text("reasons") == DESCRIPTIONS["rotated_90"]
    assert page.get("rejected").rect["y"] < page.get("bars").rect["y"]
    assert [bar[1] for bar in page.bars()] == [percent(share) for share in answer["probs"]]
    assert page.text("repaired-heading") == (
        "When repaired: turned counter-clockwise by 90 degrees"
    )
    assert [bar[1] for bar in page.bars("repaired-bars")] == [
        percent(share) for share in answer["repaired"]["probs"]
    ]
    assert [bar[0] for bar in page.bars("repaired-bars")] == [bar[0] for bar in upright]
    picture = page.get("repaired-picture")
    assert picture.get_attribute("src") == answer["repaired"]["image"]
    assert picture.accessible_name == "The repaired image, as the network sees it"
    assert page.text("news") == (
        f"Result for rotated.png: rejected. {DESCRIPTIONS['rotated_90']} "
        "See how it is read when repaired."
    )

    page.classify("coloured.png", coloured)
    assert page.text("reasons") == DESCRIPTIONS["colour"]
    assert not page.get("repaired").is_displayed()
    page.classify("again.jpeg", image)
    assert not page.get("rejected").is_displayed()
    assert "rejected" not in page.text("news")


def test_every_repair_has_words(page: Page) -> None:
    repairs = page.browser.execute_async_script(
        "const done = arguments[0]; import('./static/result.js').then((r) => done(r.REPAIRS))"
    )
    assert set(repairs) == set(get_args(Repair))


def test_dicom_image_is_shown_as_the_network_sees_it(
    page: Page, make_pixels: Callable[[int, int], np.ndarray]
) -> None:
    content = dicom(make_pixels(120, 150))
    page.classify("image.dcm", content)
    assert page.text("caption") == "image.dcm, as the network sees it"
    assert (
        page.get("picture").get_attribute("src") == page.post("/predict?cam=true", content)["image"]
    )
    assert page.get("viewer").is_displayed()


def test_rejected_file_leaves_the_result_on_the_page(page: Page, image: bytes) -> None:
    page.rejected = ["/predict"]
    page.classify("image.jpeg", image)
    bars = page.bars()
    page.choose("letter.txt", b"Dear colleague")
    page.until(lambda: page.text("problem-text"))
    assert page.get("problem-text").get_attribute("role") == "alert"
    assert page.text("problem-text").startswith(
        "letter.txt was not classified. This is not a JPEG, PNG or DICOM image."
    )
    assert "still shows the result for image.jpeg" in page.text("problem-text")
    assert not page.get("again").is_displayed()
    assert page.text("result-heading") == "Result for image.jpeg"
    assert page.bars() == bars
    page.classify("second.jpeg", image)
    assert page.text("problem-text") == ""


def test_dropped_image_replaces_the_one_before_and_frees_its_memory(
    page: Page, image: bytes
) -> None:
    page.rejected = ["blob:"]
    page.classify("image.jpeg", image)
    first = page.get("picture").get_attribute("src")
    page.run(
        "const transfer = new DataTransfer();"
        "transfer.items.add(new File([new Uint8Array(arguments[0])], 'dropped.jpeg'));"
        "document.getElementById('drop').dispatchEvent("
        "new DragEvent('drop', {dataTransfer: transfer, bubbles: true, cancelable: true}))",
        list(image),
    )
    page.until(lambda: page.text("result-heading") == "Result for dropped.jpeg")
    assert "Grad-CAM" in page.text("explanation")
    event = page.browser.execute_async_script(
        "const done = arguments[1], image = new Image();"
        "image.onload = image.onerror = (event) => done(event.type); image.src = arguments[0]",
        first,
    )
    assert event == "error"


def test_new_model_is_announced_and_can_classify_the_image_again(
    page: Page, image: bytes, publish_bundle: Callable[..., Path]
) -> None:
    page.classify("image.jpeg", image)
    old = page.post("/predict", image)["model"]["version"]
    assert not page.get("outdated").is_displayed()
    assert page.text("classes") == (
        "For frontal chest radiographs: bacterial pneumonia, normal or viral pneumonia."
    )
    new = publish_bundle(page.server.data_root, seed=2, classes=FIVE).name
    reports.publish(page.server.data_root, new)

    page.until(lambda: page.text("news") == f"A new model serves: {new}.", 60)
    assert page.get("news").get_attribute("role") == "status"
    assert new in page.text("facts")
    assert "624 synthetic test images" in page.text("test-caption")
    assert "Accuracy 0.800 0.700 to 0.850" in page.text("metrics")
    page.emulate(360, 740)
    assert page.reaches() <= 360
    assert old in page.text("maker")
    page.get("classify-again").click()
    page.until(lambda: new in page.text("maker"))
    assert not page.get("outdated").is_displayed()
    probs = page.post("/predict", image)["probs"]
    assert [bar[1] for bar in page.bars()] == [percent(share) for share in probs]
    assert "effusion, lung mass, nodule, scar or tuberculosis" in page.text("classes")
    for option, label in zip(Select(page.get("explained")).options, FIVE, strict=True):
        option.click()
        assert f"“{label.replace('_', ' ')}”" in page.text("explanation")


def test_pasted_picture_is_classified(
    page: Page, encode_image: Callable[..., bytes], make_pixels: Callable[[int, int], np.ndarray]
) -> None:
    page.run(
        "const transfer = new DataTransfer();"
        "transfer.items.add(new File([new Uint8Array(arguments[0])], 'image.png'));"
        "document.dispatchEvent(new ClipboardEvent('paste', {clipboardData: transfer}))",
        list(encode_image(Image.fromarray(make_pixels(60, 60)), "PNG")),
    )
    page.until(lambda: page.text("result-heading") == "Result for image.png")
    assert "Grad-CAM" in page.text("explanation")
