"""The service's page in a real browser."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

KEY = "0123456789abcdef"


@dataclass
class Page:
    """The page, open in a browser.

    Attributes:
        rejected: parts of the addresses of requests that the test expects to fail.
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

    def choose(self, name: str, content: bytes) -> None:
        self.get("file").send_keys(self.file(name, content))

    def classify(self, name: str, content: bytes) -> None:
        self.choose(name, content)
        self.until(lambda: self.text("result-heading") == f"Result for {name}")

    def uploads(self) -> list[str]:
        """The routes that received an image, in order."""
        return [line["route"] for line in self.server.requests() if line["method"] == "POST"]

    def map(self) -> np.ndarray:
        """The class activation map as it is painted: uint8 [H, W, RGBA]."""
        height, width, values = self.run(
            "const canvas = document.getElementById('cam');"
            "const { width, height } = canvas;"
            "const copy = new OffscreenCanvas(width, height);"
            "const context = copy.getContext('2d', { willReadFrequently: true });"
            "context.drawImage(canvas, 0, 0);"
            "return [height, width, [...context.getImageData(0, 0, width, height).data]];"
        )
        return np.array(values, np.uint8).reshape(height, width, 4)

    def run(self, script: str, *arguments: object) -> Any:
        return self.browser.execute_script(script, *arguments)

    def post(self, path: str, content: bytes) -> dict[str, Any]:
        answer = self.server.client.post(path, files={"file": ("image", content)})
        assert answer.status_code == 200
        body: dict[str, Any] = answer.json()
        return body

    def bars(self, id: str = "bars") -> list[list[str]]:
        items = self.browser.find_elements(By.CSS_SELECTOR, f"#{id} li")
        return [item.text.replace("\N{NO-BREAK SPACE}", " ").split("\n") for item in items]

    def reaches(self) -> int:
        """The width of the page's content, in pixels."""
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
        requested = self.run("return performance.getEntriesByType('resource').map((e) => e.name)")
        origin = self.run("return location.origin")
        assert requested
        assert not [name for name in requested if not name.startswith((origin, "blob:", "data:"))]
