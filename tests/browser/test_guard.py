"""The running dashboard lets nobody in but its own page, and whoever has the token."""

import http.client
import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect

from tests import records

pytestmark = pytest.mark.browser
WAIT_MS = 120_000
TOKEN = "the-token-of-this-test"
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


def status_of(url: str, path: str, **headers: str) -> int:
    """The status of the server's answer; 101 is an open websocket."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    try:
        connection.request("GET", path, headers=headers)
        return connection.getresponse().status
    finally:
        connection.close()


def test_only_its_own_page_reaches_the_running_dashboard(dashboard):
    """A name that points here (DNS rebinding) and a page of another port get neither HTML nor data.

    Websockets are refused before they open.
    """
    host = urlsplit(dashboard).netloc
    stream = "/_stcore/stream"
    assert status_of(dashboard, "/") == 200
    assert status_of(dashboard, stream, Origin=dashboard, **UPGRADE) == 101

    for path in ("/", "/_stcore/host-config", "/static/index.html"):
        assert status_of(dashboard, path, Host="rebound.example") == 403
    rebound = {"Host": "rebound.example", "Origin": "http://rebound.example"}
    assert status_of(dashboard, stream, **rebound, **UPGRADE) == 403
    for origin in ("http://evil.example", "http://127.0.0.1:1", "null"):
        assert status_of(dashboard, stream, Host=host, Origin=origin, **UPGRADE) == 403


def test_the_printed_address_opens_the_dashboard_and_others_see_nothing(
    store_root: Path, cache: Path, browser, page: Page, start_app
):
    """With a token: asked for once, then pages, links and downloads work as without."""
    records.write_study(store_root)
    with start_app(store_root, EXPLORER_TOKEN=TOKEN) as url:
        page.goto(f"{url}/compare?runs=nothing")
        expect(page.get_by_text("This dashboard needs its token")).to_be_visible(timeout=WAIT_MS)
        page.get_by_label("Token").fill("wrong")
        page.get_by_role("button", name="Open").click()
        expect(page.get_by_text("That is not its token")).to_be_visible(timeout=WAIT_MS)

        page.get_by_label("Token").fill(TOKEN)
        page.get_by_role("button", name="Open").click()
        expect(page.get_by_role("button", name="Export")).to_be_visible(timeout=WAIT_MS)
        assert TOKEN not in page.url
        assert re.search(r"/compare", page.url)
        page.get_by_role("button", name="Export").click()
        with page.expect_download() as waiting:
            page.get_by_role("button", name="CSV").click()
        assert waiting.value.path().stat().st_size > 0

        assert page.evaluate("document.cookie").find(TOKEN) == -1
        stranger = browser.new_context().new_page()
        stranger.goto(url)
        expect(stranger.get_by_text("This dashboard needs its token")).to_be_visible()
        stranger.goto(f"{url}/?token={TOKEN}")
        expect(stranger.locator(".finding").first).to_be_visible(timeout=WAIT_MS)
        stranger.context.close()
