"""Who can use the page: with a key, a keyboard, a phone, little contrast, a bad connection."""

import numpy as np
import pytest
from browser import KEY, Page
from selenium.webdriver import ActionChains, Keys


def test_key_is_requested_and_the_image_classified_with_it(keyless: Page, image: bytes) -> None:
    page = keyless
    page.rejected = ["/predict", "/model"]
    page.choose("image.jpeg", image)
    page.until(lambda: page.text("problem-text").startswith("image.jpeg was not classified."))
    assert "requires an API key" in page.text("problem-text")
    page.get("key").send_keys("of-somebody-else", Keys.ENTER)
    page.until(lambda: "does not accept this API key" in page.text("problem-text"))
    page.get("key").send_keys(KEY, Keys.ENTER)
    page.until(lambda: page.text("result-heading") == "Result for image.jpeg")
    assert "Grad-CAM" in page.text("explanation")
    assert not page.get("key-form").is_displayed()
    assert page.focused() == "file"
    assert page.run("return [document.cookie, localStorage.length]") == ["", 0]


def test_keyboard_is_enough(page: Page, image: bytes) -> None:
    def press(key: str) -> str:
        ActionChains(page.browser).send_keys(key).perform()
        return page.focused()

    assert [press(Keys.TAB), press(Keys.TAB)] == ["", "file"]
    assert page.get("drop").value_of_css_property("outline-style") == "solid"
    assert page.get("file").accessible_name.startswith("Choose an image")
    # Enter opens a dialog of the system; the driver sets its result.
    page.classify("image.jpeg", image)
    assert page.focused() == "file"

    assert press(Keys.TAB) == "explained"
    assert page.get("explained").accessible_name == "Class activation map for"
    press(Keys.HOME)
    page.until(lambda: "“bacterial pneumonia”" in page.text("explanation"))
    press(Keys.END)
    page.until(lambda: "“viral pneumonia”" in page.text("explanation"))
    assert press(Keys.TAB) == "opacity"
    press(Keys.END)
    assert page.get("cam").value_of_css_property("opacity") == "1"


def test_phone_needs_no_horizontal_scrolling(page: Page, rotated: bytes) -> None:
    page.rejected = ["/predict"]
    page.emulate(360, 740)
    page.classify(f"{'long' * 40}.jpeg", rotated)
    assert page.get("repaired").is_displayed()
    page.choose("letter.txt", b"Dear colleague")
    page.until(lambda: page.text("problem-text"))
    assert page.reaches() <= 360


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast(page: Page, rotated: bytes, scheme: str) -> None:
    """By WCAG 2.2, 1.4.3: 4.5 to 1."""
    page.rejected = ["/predict"]
    page.emulate(1200, 900, scheme)
    page.classify("image.jpeg", rotated)
    page.choose("letter.txt", b"Dear colleague")
    page.until(lambda: page.text("problem-text"))
    colours = page.run(
        """
        const of = (text) => text.match(/[\\d.]+/g).map(Number);
        const behind = (e) => {
          if (e === null) return [255, 255, 255];
          const colour = of(getComputedStyle(e).backgroundColor);
          return colour[3] === 0 ? behind(e.parentElement) : colour;
        };
        return [...document.body.querySelectorAll("*")]
          .filter((e) => e.checkVisibility() && [...e.childNodes].some((n) => n.data?.trim()))
          .map((e) => [e.textContent.trim(), of(getComputedStyle(e).color), behind(e)]);
        """
    )
    grounds = {tuple(ground) for _, _, ground in colours}
    assert len(grounds) >= 5
    assert (min(map(max, grounds)) < 50) == (scheme == "dark")
    weak = {
        text: round(contrast(ink, ground), 2)
        for text, ink, ground in colours
        if contrast(ink, ground) < 4.5
    }
    assert weak == {}


def contrast(one: list[float], other: list[float]) -> float:
    """The contrast ratio of WCAG 2.2 of two colours [r, g, b, ...] in 0..255."""
    luminances = []
    for colour in (one, other):
        rgb = np.array(colour[:3]) / 255
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        luminances.append(float(linear @ (0.2126, 0.7152, 0.0722)))
    darker, lighter = sorted(luminances)
    return (lighter + 0.05) / (darker + 0.05)


def test_api_documentation_loads_nothing_from_elsewhere(page: Page) -> None:
    page.browser.get(f"http://127.0.0.1:{page.server.port}/docs")
    page.until(lambda: "/predict/batch" in page.text("docs"))
    assert "Not a medical device" in page.text("docs")


def test_lost_connection_is_reported_and_the_image_can_be_retried(page: Page, image: bytes) -> None:
    page.rejected = ["ERR_INTERNET_DISCONNECTED"]
    page.connect(False)
    try:
        page.choose("image.jpeg", image)
        page.until(lambda: "does not answer" in page.text("problem-text"))
    finally:
        page.connect(True)
    page.get("again").click()
    page.until(lambda: page.text("result-heading") == "Result for image.jpeg")
    assert page.text("problem-text") == ""
    assert "Grad-CAM" in page.text("explanation")
