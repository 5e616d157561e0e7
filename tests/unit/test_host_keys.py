"""A host gets the key that this user gave it, and no other."""

import pytest
from typer.testing import CliRunner

from explorer.cli import app
from explorer.consent import host_keys
from explorer.errors import BadInput
from explorer.models import endpoint
from explorer.pipeline import preflight
from explorer.specs import ApiSpec, CapabilitySpec, RunSpec
from tests.scripted_server import chat, scripted

SECRET = "sk-secret-of-somebody"


def at(address):
    return endpoint.parse_endpoint(f"endpoint:{address}#m")


def explorer(*arguments):
    return CliRunner().invoke(app, ["keys", *arguments])


@pytest.fixture(autouse=True)
def keys(monkeypatch):
    """Keys in the environment, as a user has them."""
    for name in (host_keys.KEY_VARIABLE, "OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "MINE"):
        monkeypatch.setenv(name, f"{SECRET}-{name}")


@pytest.mark.parametrize("address", ["https://elsewhere.example/v1", "http://127.0.0.1:9/v1"])
@pytest.mark.parametrize("variable", ["AWS_SECRET_ACCESS_KEY", "OPENAI_API_KEY"])
def test_a_spec_does_not_choose_which_key_a_host_gets(address, variable):
    """One sentence names the command that would give it; no secret is repeated."""
    with pytest.raises(BadInput) as refused:
        endpoint.key_for(at(address), variable)

    host = address.split("/")[2]
    assert f"explorer keys allow {host} {variable}" in str(refused.value)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    "address",
    [
        "https://elsewhere.example/v1",
        "https://api.openai.com.evil.example/v1",
        "http://10.0.0.1/v1",
    ],
)
def test_a_host_without_a_line_gets_no_key(address):
    """Not even the usual variable, which is for servers on this machine."""
    assert endpoint.key_for(at(address)) is None


def test_the_standard_variable_goes_to_the_standard_host():
    """Providers and this machine need no line; a line of one's own comes first."""
    openai, here = at("https://api.openai.com/v1"), at("http://127.0.0.1:8000/v1")
    assert endpoint.key_for(openai) == f"{SECRET}-OPENAI_API_KEY"
    assert endpoint.key_for(openai, "OPENAI_API_KEY") == f"{SECRET}-OPENAI_API_KEY"
    assert endpoint.key_for(here) == f"{SECRET}-{host_keys.KEY_VARIABLE}"
    assert endpoint.key_for(at("http://localhost:8000/v1")) is not None
    assert endpoint.key_for(at("http://[::1]:8000/v1")) is not None

    host_keys.allow("api.openai.com", "MINE")
    assert endpoint.key_for(openai) == f"{SECRET}-MINE"
    with pytest.raises(BadInput, match="gets the key in MINE"):
        endpoint.key_for(openai, "OPENAI_API_KEY")


def test_a_line_for_a_port_is_for_that_port():
    """Two servers on one host may have a key each."""
    host_keys.allow("https://Models.Example:8443/v1", "MINE")

    assert endpoint.key_for(at("https://models.example:8443/v1")) == f"{SECRET}-MINE"
    assert endpoint.key_for(at("https://models.example/v1")) is None
    host_keys.allow("models.example", "AWS_SECRET_ACCESS_KEY")
    assert endpoint.key_for(at("https://models.example:9/v1")) == f"{SECRET}-AWS_SECRET_ACCESS_KEY"
    assert endpoint.key_for(at("https://models.example:8443/v1")) == f"{SECRET}-MINE"


def test_a_key_is_sent_encrypted_or_on_this_machine_only():
    """Plain http to another machine is refused where a key would go with it."""
    host_keys.allow("gpu.example", "MINE")

    with pytest.raises(BadInput, match=r"not sent to gpu\.example over plain http.*https://"):
        endpoint.key_for(at("http://gpu.example/v1"))
    assert endpoint.key_for(at("https://gpu.example/v1")) == f"{SECRET}-MINE"


def test_tasks_targets_and_timing_have_the_same_key():
    """A run that is only timed has no place for a variable in its spec: the host's line counts."""
    host_keys.allow("gpu.example", "MINE")
    served = "endpoint:https://gpu.example/v1#m"
    timed = RunSpec(teacher=served, capability=None)
    evaluated = RunSpec(
        teacher=served,
        latency=None,
        capability=CapabilitySpec(apply_chat_template=True, api=ApiSpec(key_variable="MINE")),
    )

    keys = set()
    for spec in (timed, evaluated):
        api = spec.capability and spec.capability.api
        keys.add(endpoint.key_for(at("https://gpu.example/v1"), api and api.key_variable))
    assert keys == {f"{SECRET}-MINE"}


def test_a_key_that_a_host_may_not_have_is_found_before_the_run(store_root):
    """Also for the queue on this machine, which has the same configuration."""
    spec = RunSpec(
        teacher="endpoint:https://elsewhere.example/v1#m",
        latency=None,
        capability=CapabilitySpec(
            tasks=("starter_last_word",),
            apply_chat_template=True,
            api=ApiSpec(key_variable="AWS_SECRET_ACCESS_KEY"),
        ),
    )
    for place in ("here", "queue"):
        found = preflight.findings([spec], store_root, "quick", place)
        message = next(finding.message for finding in found if finding.error)
        assert "explorer keys allow elsewhere.example AWS_SECRET_ACCESS_KEY" in message


def test_a_redirect_is_not_followed(monkeypatch):
    """The key stays with the host it was given to; the sentence names the other address."""
    import asyncio

    from explorer.latency.runtimes.endpoint_client import EndpointClient, RequestFailed

    with scripted(lambda asked: chat()) as other:
        target = other.name().removeprefix("endpoint:").partition("#")[0]
        moved = (307, "", f"{target}/chat/completions".encode())
        with scripted(lambda asked: moved) as server:
            where = endpoint.parse_endpoint(server.name())

            async def ask():
                async with EndpointClient(where, timeout_s=5, key=SECRET) as client:
                    await client.complete({"model": "m"}, lambda reply: reply, 1)

            with pytest.raises(RequestFailed, match="a redirect to"):
                asyncio.run(ask())
        assert not other.asked


def test_hosts_are_given_listed_and_taken_back():
    """`explorer keys` never prints a key."""
    assert explorer("allow", "gpu.example:8443", "MINE").exit_code == 0
    said = explorer("list").output
    assert "gpu.example:8443: MINE (yours; set in this shell)" in said
    assert "api.openai.com: OPENAI_API_KEY (by default; set in this shell)" in said
    assert said == explorer().output
    assert SECRET not in said

    assert explorer("remove", "gpu.example:8443").exit_code == 0
    assert "gpu.example" not in explorer().output
    assert "has no host" in str(explorer("remove", "gpu.example:8443").exception)


@pytest.mark.parametrize(
    ("host", "variable", "says"),
    [
        ("gpu.example", SECRET, "NAME of an environment variable"),
        ("gpu.example", "lower", "NAME of an environment variable"),
        ("two words", "MINE", "Expected a host"),
        ("", "MINE", "Expected a host"),
        ("*.example", "MINE", "Expected a host"),
        ("user:pw@gpu.example", "MINE", "no user or password"),
    ],
)
def test_what_is_no_host_or_no_name_is_refused(host, variable, says):
    """A key in place of its variable's name is not repeated."""
    said = explorer("allow", host, variable)

    assert isinstance(said.exception, BadInput)
    assert says in str(said.exception)
    assert SECRET not in str(said.exception)
    assert "pw" not in str(said.exception)
    assert not host_keys.keys_file().exists()


@pytest.mark.parametrize("text", ["- a\n", "gpu.example: [MINE]\n", f"gpu.example: {SECRET}\n"])
def test_a_damaged_file_gives_no_key_and_repeats_none(text):
    """One sentence names the file."""
    host_keys.keys_file().write_text(text, encoding="utf-8")

    with pytest.raises(BadInput, match=r"keys\.yaml") as refused:
        endpoint.key_for(at("https://gpu.example/v1"))
    assert SECRET not in str(refused.value)


def test_keys_in_the_store_are_refused(store_root, monkeypatch):
    """Whoever writes into a store could otherwise send a key anywhere."""
    monkeypatch.setenv("EXPLORER_CONFIG", str(store_root / "config.yaml"))
    (store_root / "keys.yaml").write_text("evil.example: MINE\n", encoding="utf-8")

    with pytest.raises(BadInput, match="lies in the store"):
        endpoint.key_for(at("https://evil.example/v1"))
