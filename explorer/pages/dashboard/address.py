"""Says where the dashboard is, token included, and opens it in the browser.

Streamlit's own message does not know the token, and asks a server on the internet for this
machine's address.
"""

import html
import os
import tempfile
import webbrowser
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Thread
from urllib.parse import urlencode

import streamlit as st
from streamlit import config

from explorer import paths
from explorer.pages.dashboard import access_token, first_view, web_guard
from explorer.pages.dashboard.base_path import base_path

ANY_ADDRESS = ("", "0.0.0.0", "::")  # noqa: S104 - compared with, not listened on
REDIRECT = """<!DOCTYPE html>
<meta charset="utf-8">
<meta name="referrer" content="no-referrer">
<meta http-equiv="refresh" content="0; url={url}">
<title>Distill Explorer</title>
<a href="{url}">Open Distill Explorer</a>
"""


@asynccontextmanager
async def announced(app: st.App) -> AsyncIterator[None]:
    """Print the address when the server listens, and open it where there is a screen."""
    first_view.begin()
    url = url_of_dashboard()
    print(f"\n  Distill Explorer: {url}\n", flush=True)
    if access_token.token():
        print(
            "  The token keeps other users of this machine out; EXPLORER_TOKEN=off does without.\n",
            flush=True,
        )
    if config.get_option("server.headless"):
        yield
        return
    page = write_redirect(url) if access_token.token() else None
    # Beside the server, since some browsers return only when they are closed.
    Thread(target=webbrowser.open, args=(page.as_uri() if page else url,), daemon=True).start()
    try:
        yield
    finally:
        if page:
            page.unlink(missing_ok=True)


def url_of_dashboard() -> str:
    """The address to open, with the token if there is one."""
    host = config.get_option("browser.serverAddress")
    if not config.is_manually_set("browser.serverAddress"):
        host = config.get_option("server.address") or ""
        host = "localhost" if host in ANY_ADDRESS else host
    host = f"[{host}]" if ":" in host else host
    scheme = "https" if config.get_option("server.sslCertFile") else "http"
    token = access_token.token()
    query = "?" + urlencode({web_guard.PARAMETER: token}) if token else ""
    port = config.get_option("server.port")
    return f"{scheme}://{host}:{port}{base_path()}/{query}".removesuffix("/")


def write_redirect(url: str) -> Path:
    """A page that leads to the address. Only this user can read it.

    A browser's command line can be read by every user of the machine, so it must not have the
    token.
    """
    folder = paths.cache_dir()
    folder.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix="open-dashboard-", suffix=".html", dir=folder)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(REDIRECT.format(url=html.escape(url)))
    return Path(name)
