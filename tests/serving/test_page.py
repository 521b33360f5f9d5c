"""The page as people use it: a real browser, with the real service behind it."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicoms import dicom
from PIL import Image
from selenium.webdriver import ActionChains, Chrome, ChromeOptions, Keys
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.wait import WebDriverWait

PublishBundle = Callable[..., Path]

KEY = "0123456789abcdef"
CHROMIUM, CHROMEDRIVER = shutil.which("chromium"), shutil.which("chromedriver")

pytestmark = pytest.mark.skipif(
    not (CHROMIUM and CHROMEDRIVER), reason="needs chromium and chromedriver"
)


@dataclass
class Page:
    """The page in a browser.

    Attributes:
        rejected: parts of the addresses of requests that the test lets fail.
    """

    browser: Chrome
    server: Any
    folder: Path
    rejected: list[str] = field(default_factory=list)

    def get(self, id: str) -> WebElement:
        return self.browser.find_element(By.ID, id)

    def text(self, id: str) -> str:
        return self.get(id).text.replace("\N{NO-BREAK SPACE}", " ")

    def until(self, met: Callable[[], object], seconds: float = 20) -> None:
        WebDriverWait(self.browser, seconds, poll_frequency=0.05).until(lambda _: met())

    def file(self, name: str, content: bytes) -> str:
        path = self.folder / name
        path.write_bytes(content)
        return str(path)

    def give(self, name: str, content: bytes) -> None:
        self.get("file").send_keys(self.file(name, content))

    def classify(self, name: str, content: bytes) -> None:
        self.give(name, content)
        self.until(lambda: self.text("result-heading") == f"Result for {name}")
        self.until(lambda: "Grad-CAM" in self.text("explanation"))

    def run(self, script: str, *arguments: object) -> Any:
        return self.browser.execute_script(script, *arguments)

    def post(self, path: str, content: bytes) -> dict[str, Any]:
        answer = self.server.client.post(path, files={"file": ("image", content)})
        assert answer.status_code == 200
        body: dict[str, Any] = answer.json()
        return body

    def bars(self) -> list[list[str]]:
        items = self.browser.find_elements(By.CSS_SELECTOR, "#bars li")
        return [item.text.replace("\N{NO-BREAK SPACE}", " ").split("\n") for item in items]

    def reaches(self) -> int:
        """How far to the right the page goes, in pixels."""
        return int(self.run("return document.documentElement.scrollWidth"))

    def focused(self) -> str:
        return str(self.run("return document.activeElement.id"))

    def emulate(self, width: int, height: int, scheme: str = "light") -> None:
        self.browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
        )
        self.browser.execute_cdp_cmd(
            "Emulation.setEmulatedMedia",
            {"features": [{"name": "prefers-color-scheme", "value": scheme}]},
        )

    def connect(self, connected: bool) -> None:
        self.browser.execute_cdp_cmd(
            "Network.emulateNetworkConditions",
            {
                "offline": not connected,
                "latency": 0,
                "downloadThroughput": -1,
                "uploadThroughput": -1,
            },
        )

    def check_quiet(self) -> None:
        """No error, no breach of the content security policy, no request to another origin."""
        for entry in self.browser.get_log("browser"):
            assert entry["source"] == "network", entry
            assert any(part in entry["message"] for part in self.rejected), entry
        asked = self.run("return performance.getEntriesByType('resource').map((e) => e.name)")
        origin = self.run("return location.origin")
        assert asked
        assert {name for name in asked if not name.startswith((origin, "blob:", "data:"))} == set()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    options = ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
        "--no-proxy-server",
        f"--user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with Chrome(options, Service(CHROMEDRIVER)) as browser:
        browser.execute_cdp_cmd("Network.enable", {})
        yield browser


@pytest.fixture(scope="module")
def server(
    serve: Callable[..., Any],
    publish_bundle: PublishBundle,
    tmp_path_factory: pytest.TempPathFactory,
) -> Any:
    folder = tmp_path_factory.mktemp("page")
    (folder / "keys").write_text(f"ward {KEY}\n")
    version = publish_bundle(folder / "data", seed=1).name
    server = serve(folder, keys_file=folder / "keys")
    server.wait_for_version(version)
    server.client.headers["Authorization"] = f"Bearer {KEY}"
    return server


@pytest.fixture
def keyless(browser: Chrome, server: Any, tmp_path: Path) -> Iterator[Page]:
    """The page before a key was given."""
    page = Page(browser, server, tmp_path)
    page.emulate(1200, 900)
    browser.get(f"http://127.0.0.1:{server.port}/")
    page.run("sessionStorage.clear()")
    browser.get_log("browser")
    browser.refresh()
    yield page
    page.check_quiet()


@pytest.fixture
def page(browser: Chrome, server: Any, tmp_path: Path) -> Iterator[Page]:
    page = Page(browser, server, tmp_path)
    page.emulate(1200, 900)
    browser.get(f"http://127.0.0.1:{server.port}/")
    page.run("sessionStorage.setItem('cxr-key', arguments[0])", KEY)
    browser.get_log("browser")
    browser.refresh()
    page.until(lambda: page.text("service") == "Ready for images.")
    yield page
    page.check_quiet()


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
    assert page.text("verdict").startswith("The model is not sure: ")
    assert "below 70.0 %" in page.text("verdict")
    assert answer["model"]["version"] in page.text("maker")
    assert "trained on synthetic images" in page.text("maker")
    assert page.text("news").startswith("Result for image.jpeg: ")


def test_model_is_described_and_the_disclaimer_stays_in_sight(page: Page, image: bytes) -> None:
    answer = page.server.client.get("/model").json()
    assert answer["model"]["version"] in page.text("facts")
    assert "the newest model" in page.text("facts")
    assert page.get("synthetic").is_displayed()
    assert page.get("untested").is_displayed()
    page.classify("image.jpeg", image)
    page.run("scrollTo(0, document.body.scrollHeight)")
    banner = page.browser.find_element(By.CLASS_NAME, "banner")
    assert banner.text == answer["disclaimer"]
    assert page.run("return scrollY") > 0
    assert page.run("return arguments[0].getBoundingClientRect().top", banner) == 0


def test_cam_map_lies_over_the_image_as_strong_as_the_slider_says(page: Page, image: bytes) -> None:
    page.classify("image.jpeg", image)
    cam = {
        label: np.array(page.post(f"/explain?label={label}", image)["cam"])
        for label in page.post("/predict", image)["probabilities"]
    }
    label = max(cam, key=lambda name: cam[name].std())
    assert cam[label].max() == 1
    Select(page.get("explained")).select_by_value(label)
    page.until(lambda: label.replace("_", " ") in page.text("explanation"))
    height, width, values = page.run(
        "const c = document.getElementById('cam');"
        "const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
        "return [c.height, c.width, [...d].filter((_, i) => i % 4 === 3)]"
    )
    drawn = np.array(values).reshape(height, width)
    np.testing.assert_allclose(drawn, 255 * cam[label], atol=1)

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


def test_dicom_image_is_shown_as_the_network_sees_it(
    page: Page, make_pixels: Callable[[int, int], np.ndarray]
) -> None:
    content = dicom(make_pixels(120, 150))
    page.classify("image.dcm", content)
    assert page.text("caption") == "image.dcm, as the network sees it"
    assert page.get("picture").get_attribute("src") == page.post("/explain", content)["image"]
    assert page.get("viewer").is_displayed()


def test_what_is_no_image_is_rejected_and_the_result_before_is_kept(
    page: Page, image: bytes
) -> None:
    page.rejected = ["/predict"]
    page.classify("image.jpeg", image)
    bars = page.bars()
    page.give("letter.txt", b"Dear colleague")
    page.until(lambda: page.text("problem-text"))
    assert page.get("problem-text").get_attribute("role") == "alert"
    assert page.text("problem-text").startswith(
        "letter.txt was not classified. This is no image of a kind the service reads."
    )
    assert "still the one of image.jpeg" in page.text("problem-text")
    assert not page.get("again").is_displayed()
    assert page.text("result-heading") == "Result for image.jpeg"
    assert page.bars() == bars
    page.classify("second.jpeg", image)
    assert page.text("problem-text") == ""


def test_lost_connection_is_told_and_the_image_is_not_lost(page: Page, image: bytes) -> None:
    page.rejected = ["ERR_INTERNET_DISCONNECTED"]
    page.connect(False)
    try:
        page.give("image.jpeg", image)
        page.until(lambda: "does not answer" in page.text("problem-text"))
    finally:
        page.connect(True)
    page.get("again").click()
    page.until(lambda: page.text("result-heading") == "Result for image.jpeg")
    assert page.text("problem-text") == ""
    page.until(lambda: "Grad-CAM" in page.text("explanation"))


def test_dropped_images_follow_one_another_and_leave_no_memory_behind(
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
    page.until(lambda: "Grad-CAM" in page.text("explanation"))
    event = page.browser.execute_async_script(
        "const done = arguments[1], image = new Image();"
        "image.onload = image.onerror = (event) => done(event.type); image.src = arguments[0]",
        first,
    )
    assert event == "error"


def test_key_is_asked_for_and_the_image_goes_on_with_it(keyless: Page, image: bytes) -> None:
    page = keyless
    page.rejected = ["/predict", "/model"]
    page.give("image.jpeg", image)
    page.until(lambda: page.text("problem-text").startswith("image.jpeg was not classified."))
    assert "asks for an API key" in page.text("problem-text")
    page.get("key").send_keys("of somebody else", Keys.ENTER)
    page.until(lambda: "does not accept this API key" in page.text("problem-text"))
    page.get("key").send_keys(KEY, Keys.ENTER)
    page.until(lambda: page.text("result-heading") == "Result for image.jpeg")
    page.until(lambda: "Grad-CAM" in page.text("explanation"))
    assert not page.get("key-form").is_displayed()
    assert page.focused() == "file"
    assert page.run("return [document.cookie, localStorage.length]") == ["", 0]


def test_everything_can_be_done_with_the_keyboard(page: Page, image: bytes) -> None:
    def press(key: str) -> str:
        ActionChains(page.browser).send_keys(key).perform()
        return page.focused()

    assert [press(Keys.TAB), press(Keys.TAB)] == ["", "file"]
    assert page.get("drop").value_of_css_property("outline-style") == "solid"
    assert page.get("file").accessible_name.startswith("Choose an image")
    # The chooser that Enter opens belongs to the system; the browser takes its answer this way.
    page.classify("image.jpeg", image)
    assert page.focused() == "file"

    assert press(Keys.TAB) == "explained"
    assert page.get("explained").accessible_name == "Show what spoke for"
    press(Keys.HOME)
    page.until(lambda: "“bacterial pneumonia”" in page.text("explanation"))
    press(Keys.END)
    page.until(lambda: "“viral pneumonia”" in page.text("explanation"))
    assert press(Keys.TAB) == "opacity"
    press(Keys.END)
    assert page.get("cam").value_of_css_property("opacity") == "1"


def test_phone_needs_no_scrolling_sideways(page: Page, image: bytes) -> None:
    page.rejected = ["/predict"]
    page.emulate(360, 740)
    page.classify(f"{'long' * 40}.jpeg", image)
    page.give("letter.txt", b"Dear colleague")
    page.until(lambda: page.text("problem-text"))
    assert page.reaches() <= 360


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(page: Page, image: bytes, scheme: str) -> None:
    """By WCAG 2.2, 1.4.3: 4.5 to 1."""
    page.rejected = ["/predict"]
    page.emulate(1200, 900, scheme)
    page.classify("image.jpeg", image)
    page.give("letter.txt", b"Dear colleague")
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


def test_new_model_is_told_and_can_be_asked(
    page: Page, image: bytes, publish_bundle: PublishBundle
) -> None:
    page.classify("image.jpeg", image)
    old = page.post("/predict", image)["model"]["version"]
    assert not page.get("outdated").is_displayed()
    new = publish_bundle(page.server.data_root, seed=2).name
    report = page.server.data_root / "reports" / new / "metrics.json"
    report.parent.mkdir(parents=True)
    figures = {"accuracy": 0.912, "macro_f1": 0.87, "auroc_macro_ovr": 0.981}
    intervals = {name: [value - 0.02, value + 0.01] for name, value in figures.items()}
    report.write_text(json.dumps({"images": 624, **figures, "intervals": intervals}))

    page.until(lambda: page.text("news") == f"A new model serves: {new}.", 60)
    assert page.get("news").get_attribute("role") == "status"
    assert new in page.text("facts")
    assert "624 test synthetic images" in page.text("test-caption")
    assert "Accuracy 0.912 0.892 to 0.922" in page.text("figures")
    page.emulate(360, 740)
    assert page.reaches() <= 360
    assert old in page.text("maker")
    page.get("ask-new").click()
    page.until(lambda: new in page.text("maker"))
    assert not page.get("outdated").is_displayed()
    probs = page.post("/predict", image)["probs"]
    assert [bar[1] for bar in page.bars()] == [percent(share) for share in probs]
    page.until(lambda: "Grad-CAM" in page.text("explanation"))


def test_docs_of_the_api_need_nothing_from_elsewhere(page: Page) -> None:
    page.browser.get(f"http://127.0.0.1:{page.server.port}/docs")
    page.until(lambda: "/predict/batch" in page.text("docs"))
    assert "Not a medical device" in page.text("docs")


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
    page.until(lambda: "Grad-CAM" in page.text("explanation"))
