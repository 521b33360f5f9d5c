"""The files of the page; tests/serving/http/page uses them in a browser."""

import re
from typing import Any


def test_page_and_every_module_it_imports_are_served(ready_server: Any) -> None:
    page = ready_server.client.get("/")
    assert page.headers["Content-Type"].startswith("text/html")
    found: set[str] = set()
    missing = {re.search(r'type="module" src="static/(.*?)"', page.text)[1]}
    while missing:
        name = missing.pop()
        found.add(name)
        script = ready_server.client.get(f"/static/{name}")
        assert script.status_code == 200, name
        assert "javascript" in script.headers["Content-Type"]
        missing |= set(re.findall(r'from "\./(.*?)"', script.text)) - found
    assert len(found) > 1


def test_api_documentation_is_served(ready_server: Any) -> None:
    assert "openapi.json" in ready_server.client.get("/static/docs.js").text
    assert ready_server.client.get("/docs").status_code == 200
