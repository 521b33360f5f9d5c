"""A browser, and a service of its own for each file of tests."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import servers
from browser import KEY, Page
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from servers import Server

CHROMIUM, CHROMEDRIVER = shutil.which("chromium"), shutil.which("chromedriver")


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    if not (CHROMIUM and CHROMEDRIVER):
        pytest.skip("needs chromium and chromedriver")
    options = ChromeOptions()
    options.binary_location = CHROMIUM
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
    browser: Chrome,  # without one no server is started
    publish_bundle: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("page")
    (folder / "keys").write_text(f"ward {KEY}\n")
    version = publish_bundle(folder / "data", seed=1).name
    with servers.running() as serve:
        server = serve(folder, keys_file=folder / "keys")
        server.wait_for_version(version)
        server.client.headers["Authorization"] = f"Bearer {KEY}"
        yield server


def opened(browser: Chrome, server: Server, folder: Path, key: str | None) -> Page:
    """The page, for a user who has entered this key."""
    page = Page(browser, server, folder)
    page.emulate(1200, 900)
    browser.get_log("browser")
    # Before the scripts of the page run: without its key they make a request that is rejected.
    stored = "" if key is None else f"sessionStorage.setItem('cxr-key', '{key}')"
    script = browser.execute_cdp_cmd(
        "Page.addScriptToEvaluateOnNewDocument", {"source": f"sessionStorage.clear(); {stored}"}
    )
    browser.get(f"http://127.0.0.1:{server.port}/")
    browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)
    return page


@pytest.fixture
def keyless(browser: Chrome, server: Server, tmp_path: Path) -> Iterator[Page]:
    """The page before a key is entered."""
    page = opened(browser, server, tmp_path, None)
    yield page
    page.check_quiet()


@pytest.fixture
def page(browser: Chrome, server: Server, tmp_path: Path) -> Iterator[Page]:
    page = opened(browser, server, tmp_path, KEY)
    page.until(lambda: page.text("service") == "Ready for images.")
    yield page
    page.check_quiet()
