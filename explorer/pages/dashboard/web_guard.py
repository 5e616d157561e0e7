"""What may reach the dashboard, and what its page may load: the middleware before every request.

A page on the internet can send requests to this machine, under its own name if it changes where
that name points (DNS rebinding), and can open websockets to any address. So HTTP and websocket
alike must name a host that we answer to, come from a page of ours, and bring the token where there
is one. The answer's headers keep the page from loading, sending to, or being framed by other sites.
"""

import base64
import hashlib
import hmac
import html
import re
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import streamlit
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware  # Streamlit brings it
from starlette.requests import HTTPConnection
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from streamlit import config

from explorer.pages.dashboard import access_token, back_button, first_view
from explorer.pages.dashboard.base_path import base_path

SCRIPT = Path(__file__).with_name("script.py")
STYLE = Path(__file__).with_name("style.css")
PARAMETER = "token"
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
READS = ("GET", "HEAD", "OPTIONS")
HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[^:/@\[\]\s]+)(:\d+)?", re.IGNORECASE)
INLINE_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)
POLICY = {
    "default-src": "'none'",
    # The hashes are of the script inside Streamlit's index.html and of ours, from `back_button` and
    # `first_view`; nothing else inline runs. As a blob Streamlit hands over our components
    # (`chart_width`); only a script can make one.
    "script-src": "'self' blob: {index_scripts}",
    # unsafe-inline: Streamlit (emotion) and Plotly write style elements while the page runs, with
    # no nonce. A style cannot call another server, since every source of files is this one.
    "style-src": "'self' 'unsafe-inline'",
    # data: and blob: come from the page itself: Plotly's and Streamlit's icons, and charts saved
    # as pictures.
    "img-src": "'self' data: blob:",
    "font-src": "'self' data:",
    "connect-src": "'self'",
    "manifest-src": "'self'",
    "media-src": "'self'",
    "form-action": "'self'",
    "base-uri": "'none'",
    "frame-ancestors": "'none'",
}
"""The Content-Security-Policy. What is not named falls back to default-src: not at all."""

ASK = """<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><title>Distill Explorer</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>:root {{ color-scheme: light dark }}
body {{ font: 1rem/1.5 sans-serif; max-width: 36rem; margin: 4rem auto; padding: 0 1rem }}
@media (prefers-color-scheme: dark) {{ body {{ background: #12171c; color: #e8ecf0 }} }}
input, button {{ font: inherit; padding: .3rem .6rem }}</style>
<h1>Distill Explorer</h1>
<p>{sentence} Open the address that the dashboard printed when it started, or enter its token:</p>
<form>{hidden}<label>Token <input name="{parameter}" type="password" autocomplete="off" required
autofocus></label> <button>Open</button></form></html>
"""


def middleware() -> list[Middleware]:
    """What `st.App` runs before everything of its own."""
    access_token.check_variable()
    return [Middleware(WebGuard)]


class WebGuard:
    """ASGI middleware that refuses strangers and adds the security headers."""

    def __init__(self, app: ASGIApp) -> None:
        """Reads Streamlit's settings; they are known when the server is built."""
        self._app = app
        self._token = access_token.token()
        self._hosts = allowed_hosts()
        self._origins = {
            origin.strip() for origin in config.get_option("server.corsAllowedOrigins")
        }
        base = base_path()
        self._health = f"{base}/_stcore/health"
        history, warm_up = back_button.SCRIPT, first_view.warm_up_script()
        self._headers = security_headers(history, warm_up)
        self._head = (
            f"{first_view.preload_links(base)}<script>{history}</script>"
            f'<script type="module" async>{warm_up}</script></head>'
        ).encode()
        self._foot = f"<style>{STYLE.read_text(encoding='utf-8')}</style></body>".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it here."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return

        page: list[Message] = []

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers[name] = value
                if scope["method"] == "GET" and _is_page(message, headers):
                    page.append(message)
                    return
            if page:
                page.append(message)
                if message.get("more_body"):
                    return
                start, body = self._with_our_parts(page)
                await send(start)
                message = body
            await send(message)

        refusal = self._refusal(scope, Headers(scope=scope))
        if refusal is None:
            await self._app(_uncompressed(scope), receive, send_with_headers)
        elif scope["type"] == "websocket":
            # Before it is accepted: the browser gets status 403 and no connection.
            await send({"type": "websocket.close", "code": 1008, "reason": "refused"})
        else:
            await refusal(scope, receive, send_with_headers)

    def _with_our_parts(self, page: list[Message]) -> tuple[Message, Message]:
        """The start and the body of Streamlit's page, with our scripts and rules."""
        start, *parts = page
        body = b"".join(part.get("body", b"") for part in parts)
        body = body.replace(b"</head>", self._head, 1).replace(b"</body>", self._foot, 1)
        MutableHeaders(scope=start)["content-length"] = str(len(body))
        return start, {"type": "http.response.body", "body": body}

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        """The answer to a request that goes no further; None for one that does."""
        host = headers.get("host", "")
        if len(headers.getlist("host")) != 1 or not self._answers_to(host):
            return PlainTextResponse(
                f"This dashboard does not answer to the host name {host[:100]!r}. If it is yours, "
                "start the dashboard with: streamlit run app.py --server.allowedHosts NAME\n",
                status_code=403,
            )
        origin = headers.get("origin")
        needs_origin = scope["type"] == "websocket"
        writes = scope["type"] == "http" and scope["method"] not in READS
        if (needs_origin or (writes and origin)) and not self._is_ours(origin, host):
            return PlainTextResponse(
                "Another page may not use this dashboard. If it is yours, start the dashboard "
                "with: streamlit run app.py --server.corsAllowedOrigins ORIGIN\n",
                status_code=403,
            )
        return self._refusal_without_token(scope) if self._token else None

    def _answers_to(self, host: str) -> bool:
        match = HOST.fullmatch(host)
        name = match["name"].strip("[]").rstrip(".").lower() if match else ""
        return bool(name) and any(
            name == allowed
            or allowed == "*"
            or (allowed[:2] == "*." and name.endswith(allowed[1:]))
            for allowed in self._hosts
        )

    def _is_ours(self, origin: str | None, host: str) -> bool:
        """Whether the page that asks came from this server: same name, same port."""
        return origin is not None and (urlsplit(origin).netloc == host or origin in self._origins)

    def _refusal_without_token(self, scope: Scope) -> Response | None:
        if scope["path"] == self._health:  # says "ok", to whatever watches the server
            return None
        # Browsers give a cookie to every port of a host, so the port is in the name.
        cookie = f"explorer_token_{(scope.get('server') or ('', 0))[1]}"
        if self._is_token(HTTPConnection(scope).cookies.get(cookie, "")):
            return None
        if scope["type"] == "websocket":
            return PlainTextResponse("", status_code=403)
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        rest = [(name, value) for name, value in query if name != PARAMETER]
        stated = [value for name, value in query if name == PARAMETER]
        if scope["method"] == "GET" and any(map(self._is_token, stated)):
            # One slash: two would lead to another host.
            path = "/" + quote(scope["path"].lstrip("/\\"))
            answer = RedirectResponse(f"{path}?{urlencode(rest)}" if rest else path, 303)
            answer.set_cookie(
                cookie,
                self._token,
                httponly=True,
                samesite="lax",
                secure=scope["scheme"] == "https",
            )
            return answer
        page = ASK.format(
            sentence="That is not its token." if stated else "This dashboard needs its token.",
            parameter=PARAMETER,
            hidden="".join(
                f'<input type="hidden" name="{html.escape(name)}" value="{html.escape(value)}">'
                for name, value in rest
            ),
        )
        return HTMLResponse(page, status_code=403)

    def _is_token(self, stated: str) -> bool:
        return hmac.compare_digest(stated.encode(), self._token.encode())


def allowed_hosts() -> set[str]:
    """Names that the dashboard answers to: Streamlit's `server.allowedHosts`.

    By default this machine's own, and the ones that it was told to listen on or to be shown as.
    """
    stated = config.get_option("server.allowedHosts")
    if not stated:
        stated = [*LOOPBACK_NAMES, config.get_option("server.address") or ""]
        if config.is_manually_set("browser.serverAddress"):
            stated.append(config.get_option("browser.serverAddress"))
    return {host.strip().strip("[]").rstrip(".").lower() for host in stated} - {""}


def _uncompressed(scope: Scope) -> Scope:
    """The request; if for a page, then without leave to compress it, as we add something."""
    if "text/html" not in Headers(scope=scope).get("accept", ""):
        return scope
    kept = [(name, value) for name, value in scope["headers"] if name != b"accept-encoding"]
    return {**scope, "headers": kept}


def _is_page(start: Message, headers: Headers) -> bool:
    """Whether an answer is Streamlit's page, as it lies on the disk."""
    return (
        start["status"] == 200
        and "text/html" in headers.get("content-type", "")
        and "content-encoding" not in headers
    )


def security_headers(*own_scripts: str) -> dict[str, str]:
    """Headers of every answer.

    Args:
        own_scripts: The texts of the inline scripts that we add to the page.
    """
    policy = "; ".join(f"{name} {sources}" for name, sources in POLICY.items())
    index = Path(streamlit.__file__).parent / "static" / "index.html"
    scripts = [*INLINE_SCRIPT.findall(index.read_text(encoding="utf-8")), *own_scripts]
    return {
        "content-security-policy": policy.format(index_scripts=" ".join(map(_hash, scripts))),
        "x-frame-options": "DENY",  # for browsers that do not know frame-ancestors
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        # Pages of others, also on other ports of this machine, can neither embed a file nor keep
        # a handle on a window that they opened.
        "cross-origin-resource-policy": "same-origin",
        "cross-origin-opener-policy": "same-origin",
    }


def _hash(script: str) -> str:
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
