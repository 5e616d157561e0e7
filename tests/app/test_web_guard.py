"""Who may use the dashboard: host names, origins, the token, and the headers of every answer."""

import asyncio
import base64
import hashlib
import pwd
import re
import stat
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import streamlit as st
from starlette.testclient import TestClient
from streamlit import config
from streamlit.runtime import Runtime

from explorer.pages.dashboard import (
    access_token,
    address,
    back_button,
    first_view,
    plotly_scripts,
    web_guard,
)
from tests import scripts

TOKEN = "a-token-of-our-own"
HOST = "127.0.0.1:8501"


@pytest.fixture
def options(monkeypatch):
    """Sets Streamlit's options for one test."""
    changed = {}

    def set_options(**values):
        for name, value in values.items():
            key = name.replace("_", ".", 1)
            changed.setdefault(key, config.get_option(key))
            config.set_option(key, value)

    yield set_options
    for key, value in changed.items():
        config.set_option(key, value)


@pytest.fixture
def with_token(monkeypatch):
    """A dashboard that needs the token."""
    set_token(monkeypatch, TOKEN)


def set_token(monkeypatch, value):
    monkeypatch.setenv("EXPLORER_TOKEN", value)
    access_token.token.cache_clear()


@pytest.fixture(autouse=True)
def forget_token():
    """No test leaves its token to the next."""
    access_token.token.cache_clear()
    yield
    access_token.token.cache_clear()


def ask(path="/", *, kind="http", method="GET", host=HOST, page=None, **headers):
    """Ask a guarded app; returns status, headers and text of the answer.

    The app behind the guard answers 200, or accepts the websocket (status 101). Its answer is
    plain, or the parts of an HTML `page`.
    """
    sent = []
    parts = page or [b"the page"]
    length = str(sum(map(len, parts))).encode()
    answer_headers = [(b"content-type", b"text/html"), (b"content-length", length)] if page else []

    async def app(scope, receive, send):
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": answer_headers})
        for number, part in enumerate(parts, start=1):
            await send(
                {"type": "http.response.body", "body": part, "more_body": number < len(parts)}
            )

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.request"}

    path, _, query = path.partition("?")
    named = {"host": host, **{name.replace("_", "-"): value for name, value in headers.items()}}
    scope = {
        "type": kind,
        "method": method,
        "scheme": "http",
        "path": path,
        "query_string": query.encode(),
        "headers": [
            (name.encode(), value.encode()) for name, value in named.items() if value is not None
        ],
        "server": ("127.0.0.1", 8501),
    }
    asyncio.run(web_guard.WebGuard(app)(scope, receive, send))
    first = sent[0]
    if kind == "websocket":
        return (101 if first["type"] == "websocket.accept" else 403), {}, ""
    answer = {name.decode().lower(): value.decode() for name, value in first["headers"]}
    return first["status"], answer, b"".join(m.get("body", b"") for m in sent[1:]).decode()


def test_streamlits_page_gets_our_scripts_and_rules_and_the_policy_allows_them():
    """Scripts in its head, with their hashes in the policy; the rules after Streamlit's own."""
    status, headers, text = ask(page=[b"<html><head>x</he", b"ad><body>", b"y</body></html>"])

    head, body = text.split("</head>")
    scripts = re.findall(r"<script[^>]*>(.*?)</script>", head, re.DOTALL)
    assert scripts == [back_button.SCRIPT, first_view.warm_up_script()]
    for script in scripts:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in headers["content-security-policy"]
    assert status == 200
    assert int(headers["content-length"]) == len(text)
    assert 'x<link rel="modulepreload" href="/plotly/' in head
    assert re.fullmatch(r"<body>y<style>.*\.finding.*</style></body></html>", body, re.DOTALL)


@pytest.mark.parametrize("path", ["/", "/compare", "/run?run=a"])
def test_a_browser_that_takes_compressed_pages_gets_ours_whole(monkeypatch, path):
    """Streamlit compresses the page under every address but `/`, where nothing could be added."""
    monkeypatch.setenv("EXPLORER_TOKEN", "off")
    monkeypatch.setattr(Runtime, "_instance", None)  # there is one in a process
    server = st.App(
        web_guard.SCRIPT, routes=plotly_scripts.routes(), middleware=web_guard.middleware()
    )
    accepts = {"accept": "text/html,*/*;q=0.8", "accept-encoding": "gzip, br"}

    with TestClient(server, base_url="http://localhost") as browser:
        page = browser.get(path, headers=accepts).text

    assert back_button.SCRIPT in page
    assert "<style>" in page


def test_a_question_for_the_pages_headers_alone_is_answered_as_it_was():
    """HEAD has no body to put a script into."""
    _, headers, text = ask(method="HEAD", page=[b""])

    assert text == ""
    assert headers["content-length"] == "0"


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example:8501", "localhost@evil.example", "", None, "[::2]"],
)
def test_a_foreign_host_name_gets_nothing(kind, host):
    """DNS rebinding ends at the door, for pages and websockets alike."""
    assert ask(kind=kind, host=host, origin=f"http://{host}")[0] == 403


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize("host", [HOST, "localhost", "LOCALHOST.:8501", "[::1]:8501"])
def test_this_machine_is_answered_under_its_own_names(kind, host):
    """Without any setting the dashboard answers on loopback."""
    assert ask(kind=kind, host=host, origin=f"http://{host}")[0] in (101, 200)


def test_an_administrator_names_the_hosts(options):
    """Streamlit's server.allowedHosts holds for HTTP as for websockets, and replaces ours."""
    options(server_allowedHosts=["explorer.example.org", "*.lab.example"])

    assert ask(host="explorer.example.org")[0] == 200
    assert ask(host="node7.lab.example:8501")[0] == 200
    status, _, text = ask(host="localhost:8501")
    assert status == 403
    assert "--server.allowedHosts" in text


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "http://127.0.0.1:9999", "http://localhost:8501", "null", None],
)
def test_a_websocket_opens_only_from_the_dashboards_own_page(origin):
    """Neither another site, nor another port of this machine, nor a sandboxed frame gets one."""
    assert ask("/_stcore/stream", kind="websocket", origin=origin)[0] == 403


def test_another_page_cannot_upload(options):
    """A write names its page, and only ours, or one that the administrator named, may."""
    path = "/_stcore/upload_file/a/b"

    assert ask(path, method="PUT", origin="http://evil.example")[0] == 403
    assert ask(path, method="PUT", origin=f"http://{HOST}")[0] == 200
    options(server_corsAllowedOrigins=["https://portal.example"])
    assert ask(path, method="PUT", origin="https://portal.example")[0] == 200


def test_every_answer_says_what_the_page_may_load():
    """No wildcard and no other host; every unsafe word has its reason; nobody may frame the page.

    Refusals carry the same headers.
    """
    source = Path(web_guard.__file__).read_text(encoding="utf-8")
    for status, headers, _ in (ask(), ask(host="evil.example")):
        assert status in (200, 403)
        policy = headers["content-security-policy"]
        sources = {word for part in policy.split(";") for word in part.split()[1:]}
        allowed = re.compile(r"'(self|none|unsafe-inline|sha256-[\w+/=]+)'|data:|blob:")
        assert {word for word in sources if not allowed.fullmatch(word)} == set()
        for word in {word.strip("'") for word in sources if "unsafe" in word}:
            assert f"# {word}: " in source
        assert "unsafe" not in policy.split("script-src")[1].split(";")[0]
        assert "frame-ancestors 'none'" in policy
        assert "default-src 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["cross-origin-opener-policy"] == "same-origin"


@pytest.mark.parametrize("path", ["/", "/run?run=x", "/static/js/index.js", "/media/x.csv"])
def test_without_the_token_nothing_is_shown(with_token, path):
    """Another user of the machine gets a page that asks for the token, and no file of ours."""
    status, headers, text = ask(path)

    assert status == 403
    assert "the page" not in text
    assert "set-cookie" not in headers
    assert ask(f"{path}{'&' if '?' in path else '?'}token=wrong")[0] == 403
    assert ask("/_stcore/stream", kind="websocket", origin=f"http://{HOST}")[0] == 403


def test_the_token_in_the_address_becomes_a_cookie(with_token):
    """The printed address opens the dashboard, and the token leaves the address bar at once."""
    status, headers, _ = ask(f"/compare?token={TOKEN}&runs=a%20b")

    assert status == 303
    assert headers["location"] == "/compare?runs=a+b"
    cookie = headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert ask("/compare", cookie=cookie.split(";")[0])[0] == 200
    assert ask(kind="websocket", origin=f"http://{HOST}", cookie=cookie.split(";")[0])[0] == 101


def test_a_link_with_a_token_leads_to_no_other_host(with_token):
    """Two slashes at the beginning of a path would name another server."""
    for path in ("//evil.example/", "/\\evil.example/"):
        _, headers, _ = ask(f"{path}?token={TOKEN}")

        assert headers["location"].startswith("/evil.example")


def test_the_page_that_asks_for_the_token_keeps_the_link(with_token):
    """A link to a run still leads there after the token is typed, and cannot bring HTML along."""
    _, _, text = ask('/?run="><script>alert(1)</script>')

    assert 'name="run"' in text
    assert "<script>" not in text


def test_a_watchdog_needs_no_token(with_token):
    """Whatever restarts a dead server may ask whether it lives, and learns nothing else."""
    assert ask("/_stcore/health")[0] == 200
    assert ask("/x/_stcore/health")[0] == 403


def test_one_person_alone_needs_no_token(monkeypatch, options):
    """The default: a token where another person has an account, or the page is on the network."""
    monkeypatch.delenv("EXPLORER_TOKEN", raising=False)
    monkeypatch.setattr(access_token.os, "getuid", lambda: 1000)
    monkeypatch.setattr(psutil, "process_iter", lambda: iter([]))
    people = [account(0), account(33, "/usr/sbin/nologin"), account(1000), account(65_534)]
    monkeypatch.setattr(pwd, "getpwall", lambda: people)
    options(server_address="127.0.0.1")
    assert access_token.token() == ""

    people.append(account(1001))
    access_token.token.cache_clear()
    assert len(access_token.token()) >= 32

    people.pop()
    options(server_address="0.0.0.0")
    access_token.token.cache_clear()
    assert len(access_token.token()) >= 32


def account(uid, shell="/bin/bash"):
    return SimpleNamespace(pw_uid=uid, pw_shell=shell)


def test_who_runs_something_here_has_an_account(monkeypatch):
    """Accounts of a directory service are not listed; their processes are seen."""
    monkeypatch.setattr(access_token.os, "getuid", lambda: 1000)
    monkeypatch.setattr(pwd, "getpwall", lambda: [account(1000)])
    other = SimpleNamespace(uids=lambda: SimpleNamespace(real=20_123))
    monkeypatch.setattr(psutil, "process_iter", lambda: iter([other]))

    assert access_token.others_have_accounts()


def test_the_token_can_be_turned_off_or_chosen(monkeypatch, options):
    """EXPLORER_TOKEN: off, on, or one's own; one that can be guessed is refused in words."""
    options(server_address="0.0.0.0")
    set_token(monkeypatch, "off")
    assert access_token.token() == ""
    set_token(monkeypatch, "on")
    assert access_token.token() == access_token.token() != ""
    set_token(monkeypatch, TOKEN)
    assert access_token.token() == TOKEN
    set_token(monkeypatch, "1234")
    with pytest.raises(SystemExit, match="at least 16 characters"):
        web_guard.middleware()


def test_the_printed_address_opens_the_dashboard(with_token, options):
    """Address, port, path and token are those of the server that runs."""
    options(server_address="::1", server_port=8765, server_baseUrlPath="lab/")

    url = address.url_of_dashboard()

    assert url == f"http://[::1]:8765/lab/?token={TOKEN}"


def test_the_browser_is_handed_no_token_on_its_command_line(with_token, tmp_path, monkeypatch):
    """Everyone may read a command line: the browser opens a file that only this user can read."""
    monkeypatch.setenv("EXPLORER_CACHE", str(tmp_path))

    page = address.write_redirect(f"http://localhost/?a=1&token={TOKEN}")

    assert TOKEN not in str(page)
    assert f"a=1&amp;token={TOKEN}" in page.read_text(encoding="utf-8")
    assert stat.S_IMODE(page.stat().st_mode) == 0o600


def test_both_ways_to_start_run_the_same_server():
    """`streamlit run app.py` and `explorer app` start one script behind one guard."""
    root = Path(__file__).parents[2]
    servers = []
    for path in (root / "app.py", root / "explorer" / "pages" / "dashboard" / "app.py"):
        app = scripts.load(path).app
        assert isinstance(app, st.App)
        routes = [route.path for route in app._user_routes]
        servers.append((app.script_path, [m.cls for m in app._user_middleware], routes))

    assert servers[0] == servers[1]
    assert servers[0][1] == [web_guard.WebGuard]
