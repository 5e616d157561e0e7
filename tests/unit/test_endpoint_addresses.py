"""Addresses as people write them, and what lies between: proxies and certificates."""

import asyncio
import socket
import ssl
import subprocess

import pytest

from explorer.errors import BadInput
from explorer.latency.runtimes import endpoint_client
from explorer.latency.runtimes.endpoint_client import EndpointClient, RequestFailed
from explorer.models import endpoint
from tests.scripted_server import chat, scripted

PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch):
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def ask(name, timeout_s=2):
    async def one():
        where = endpoint.parse_endpoint(name)
        async with EndpointClient(where, timeout_s=timeout_s, key=None) as client:
            return await client.complete({"model": "m"}, lambda reply: reply, 1)

    return asyncio.run(one())


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("http://host:8000/v1", "http://host:8000/v1/chat/completions"),
        ("http://host:8000/v1/", "http://host:8000/v1/chat/completions"),
        ("http://host:8000", "http://host:8000/v1/chat/completions"),
        ("http://host:8000/", "http://host:8000/v1/chat/completions"),
        ("http://host//v1//", "http://host/v1/chat/completions"),
        ("https://host/openai/v1", "https://host/openai/v1/chat/completions"),
        ("http://host/v1/chat", "http://host/v1/chat/completions"),
        ("http://host/v1/chat/completions/", "http://host/v1/chat/completions"),
        ("http://host/v1/completions", "http://host/v1/completions"),
        ("https://host/v1/messages", "https://host/v1/messages"),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v1/chat/completions"),
        (" http://host/v1 ", "http://host/v1/chat/completions"),
    ],
)
def test_an_address_is_taken_as_people_write_it(address, url):
    """With or without /v1, slashes at the end, a whole route, an IPv6 address."""
    where = endpoint.parse_endpoint(f"endpoint:{address}#org/model")

    assert (where.url, where.model) == (url, "org/model")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("endpoint:http://::1:8000/v1#m", "in brackets"),
        ("endpoint:http://host/v1/models#m", "Write the part before /models"),
        ("endpoint:http://host/v1/responses#m", "Write the part before /responses"),
        ("endpoint:http://ho st/v1#m", "is not an endpoint"),
        ("endpoint:http:///v1#m", "is not an endpoint"),
        ("endpoint:http://host/v1# ", "has no model"),
        ("endpoint:http://host/v1#m?api_key=hidden", "EXPLORER_ENDPOINT_KEY"),
        ("endpoint:http://hidden@host/v1#m", "endpoint at host contains"),
        ("endpoint:me:hidden@host/v1#m", "EXPLORER_ENDPOINT_KEY"),
        ("endpoint:http://host/sk-hidden-0123456789abcdef/v1#m", "EXPLORER_ENDPOINT_KEY"),
    ],
)
def test_a_wrong_address_is_refused_without_repeating_a_secret(name, says):
    """Records store names, so no name may hold a key; the message shows none."""
    with pytest.raises(BadInput, match=says) as refused:
        endpoint.parse_endpoint(name)
    assert "hidden" not in str(refused.value)


@pytest.mark.parametrize(
    ("host", "is_local"),
    [
        ("127.0.0.1", True),
        ("127.0.1.1", True),
        ("localhost", True),
        ("model.localhost", True),
        ("0.0.0.0", True),
        ("[::1]", True),
        (socket.gethostname(), True),
        ("192.168.1.5", False),
        ("example.org", False),
    ],
)
def test_this_machine_has_many_names(host, is_local):
    """A server here is asked without a proxy, and its work is not taken for others'."""
    assert endpoint.parse_endpoint(f"endpoint:http://{host}:8000/v1#m").is_local == is_local


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])
def test_a_proxy_never_catches_this_machine(variable, monkeypatch):
    """It could not reach our ports, and would see the key."""
    monkeypatch.setenv(variable, "http://127.0.0.1:9")

    with scripted(lambda asked: chat()) as server:
        assert ask(server.name())["choices"]


def test_a_proxy_that_is_not_there_is_named(monkeypatch):
    """The host is not to blame; NO_PROXY names what to reach without it."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    name = "endpoint:http://host.invalid/v1#m"

    with pytest.raises(RequestFailed, match="unreachable") as failed:
        ask(name)
    assert "NO_PROXY" in endpoint_client.advice(endpoint.parse_endpoint(name), failed.value)


@pytest.mark.parametrize("proxy", ["gopher://x:1", "http://host:port"])
def test_a_proxy_that_cannot_be_used_is_a_sentence(proxy, monkeypatch):
    """A broken variable is found before a request, not as a traceback."""
    monkeypatch.setenv("http_proxy", proxy)

    with pytest.raises(BadInput, match=r"proxy in the environment.*NO_PROXY"):
        ask("endpoint:http://host.invalid/v1#m")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A self-signed certificate of this machine and its key, in one file."""
    folder = tmp_path_factory.mktemp("tls")
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    try:
        subprocess.run(
            ["openssl", "req", "-x509", *kind, "-days", "2", *names, *files],
            check=True,
            capture_output=True,
        )
    except FileNotFoundError:
        pytest.skip("openssl makes the certificate, and it is not installed")
    return folder


def test_a_self_signed_certificate_says_how_it_is_trusted(certificate, monkeypatch):
    """Refused with the variable to set; with that variable it works."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    with scripted(lambda asked: chat()) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        name = server.name().replace("http:", "https:")
        with pytest.raises(RequestFailed, match="unreachable") as failed:
            ask(name)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "cert.pem"))
        answer = ask(name)

    where = endpoint.parse_endpoint(name)
    assert "set SSL_CERT_FILE" in endpoint_client.advice(where, failed.value)
    assert answer["choices"]


def test_https_where_the_server_speaks_http_says_so():
    """The address is one letter away from right."""
    with scripted(lambda asked: chat()) as server:
        name = server.name().replace("http:", "https:")
        with pytest.raises(RequestFailed) as failed:
            ask(name)

    where = endpoint.parse_endpoint(name)
    assert "write http:// instead" in endpoint_client.advice(where, failed.value)


def test_certificates_that_are_not_there_are_a_sentence(monkeypatch, tmp_path):
    """A wrong SSL_CERT_FILE is named before a request."""
    for file in (tmp_path / "missing.pem", tmp_path / "empty.pem"):
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
        (tmp_path / "empty.pem").touch()
        with pytest.raises(BadInput, match=r"SSL_CERT_FILE names .*pem.*PEM file, or unset"):
            ask("endpoint:http://127.0.0.1:9/v1#m")
