"""Models from a hub: the client of huggingface_hub against a stub of the hub on loopback.

Each test asks in a child process, because huggingface_hub reads its environment when it is
imported.
"""

import json
import os
import subprocess
import sys

import pytest
from huggingface_hub import constants

from explorer.models import facts, loading, sizes
from tests.hub_stub import COMMITS, TOKEN, serving_hub

FETCH = """
import json, sys, time
from explorer.errors import ExplorerError
from explorer.models import hub

time.sleep = lambda seconds: None  # between the client's own attempts
answers = {}
for name in sys.argv[1:]:
    try:
        folder = hub.fetch(name, weights=True)
        answers[name] = [hub.commit_of(folder), (folder / "model.safetensors").stat().st_size]
    except ExplorerError as error:
        answers[name] = f"{type(error).__name__}: {error}"
print(json.dumps(answers))
"""
NUM_BYTES = 25_000_000
"""Several of the client's pieces, so that a broken download has something to continue."""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A model's folder as far as a download is concerned."""
    folder = tmp_path_factory.mktemp("model")
    (folder / "config.json").write_text("{}")
    with (folder / "model.safetensors").open("wb") as file:
        file.truncate(NUM_BYTES)
    return folder


@pytest.fixture
def hub(files):
    with serving_hub(files) as running:
        yield running


def fetch(hub, home, *names, script=FETCH, **variables):
    """What a process with these variables gets for each name: commit and size, or the error."""
    left_out = ("HF_HUB_OFFLINE", "HF_TOKEN", "HF_HUB_CACHE")
    clean = {name: value for name, value in os.environ.items() if name not in left_out}
    child = subprocess.run(
        [sys.executable, "-c", script, *names],
        env=clean | {"HF_ENDPOINT": hub.url, "HF_HOME": str(home)} | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    return json.loads(child.stdout.splitlines()[-1])


def test_a_model_is_pinned_to_the_commit_of_its_revision(hub, tmp_path):
    """A branch, a tag, a pull request or a commit; later without the hub, as it was."""
    names = ["org/m", "org/m@v1", "org/m@refs/pr/1", f"org/m@{COMMITS['v1']}"]

    answers = fetch(hub, tmp_path, *names)
    offline = fetch(hub, tmp_path, "org/m", "org/m@v1", "org/other", HF_HUB_OFFLINE="1")
    gone = fetch(hub, tmp_path, "org/m", "org/other", HF_ENDPOINT="http://127.0.0.1:9")

    commits = [COMMITS["main"], COMMITS["v1"], COMMITS["refs/pr/1"], COMMITS["v1"]]
    assert list(answers.values()) == [[commit, NUM_BYTES] for commit in commits]
    assert [offline["org/m"][0], offline["org/m@v1"][0]] == [COMMITS["main"], COMMITS["v1"]]
    assert "HF_HUB_OFFLINE=1 forbids downloads" in offline["org/other"]
    assert gone["org/m"][0] == COMMITS["main"]
    assert "127.0.0.1:9 could not be reached" in gone["org/other"]


def test_what_a_hub_refuses_is_one_sentence_with_the_next_step(hub, tmp_path):
    """Gated, private, missing, disabled, limited, down, no hub at all, no id at all."""
    says = {
        "org/gated": "gated. Accept its terms at {url}/org/gated and set HF_TOKEN",
        "org/private": "no model org/private that is public. For a private model, set HF_TOKEN",
        "org/missing": "no model org/missing",
        "org/disabled": "was disabled",
        "org/limited": "HTTP 429, Too many requests. Wait a moment",
        "org/down": "HTTP 503, Maintenance. Run again later",
        "org/no_hub": "does not answer as a model hub",
        "org/m@nope": "has no revision nope",
        "a b": "is not a hub id",
        "@": "is not a hub id",
    }

    answers = fetch(hub, tmp_path, *says)

    for name, text in says.items():
        assert text.format(url=hub.url) in answers[name]
        assert "\n" not in answers[name]


def test_a_model_without_safetensors_is_refused(tmp_path):
    """Other weights can run code when they are read; an adapter or GGUF alone is no model."""
    files = tmp_path / "files"
    files.mkdir()
    (files / "pytorch_model.bin").write_bytes(b"x")
    with serving_hub(files) as hub:
        neither = fetch(hub, tmp_path / "home", "org/m")["org/m"]
        (files / "config.json").write_text("{}")
        pickled = fetch(hub, tmp_path / "other", "org/m")["org/m"]

    assert "has no config.json" in neither
    assert "has no model.safetensors" in pickled
    assert "convert" in pickled


def test_a_token_opens_what_is_private_and_a_wrong_one_is_named(hub, tmp_path):
    """HF_TOKEN is sent; a gated model then waits for the account's consent."""
    right = fetch(hub, tmp_path, "org/private", "org/gated", HF_TOKEN=TOKEN)
    wrong = fetch(hub, tmp_path / "other", "org/m", HF_TOKEN="hf_wrong")

    assert right["org/private"][0] == COMMITS["main"]
    assert "with the account of HF_TOKEN" in right["org/gated"]
    assert "does not accept the token in HF_TOKEN" in wrong["org/m"]
    assert "hf_wrong" not in wrong["org/m"]


def test_a_broken_download_continues_where_it_stopped(hub, tmp_path):
    """The hub breaks off each time until the client gives up; the next run asks for the rest."""
    hub.breaks_left = 100
    broken = fetch(hub, tmp_path, "org/m")
    hub.breaks_left = 0
    hub.requests.clear()

    whole = fetch(hub, tmp_path, "org/m")

    assert "broke off" in broken["org/m"]
    assert "the download continues where it stopped" in broken["org/m"]
    assert whole["org/m"] == [COMMITS["main"], NUM_BYTES]
    ranges = [part for method, path, part in hub.requests if (method, path[-4:]) == ("GET", "sors")]
    assert len(ranges) == 1
    assert int(ranges[0].removeprefix("bytes=").split("-")[0]) > 0


def test_a_disk_without_room_is_noticed_before_the_download(hub, tmp_path):
    """How much is missing where, and the variable that moves it; nothing is downloaded."""
    hub.claimed_bytes = 10**15

    answer = fetch(hub, tmp_path, "org/m")["org/m"]

    assert answer.startswith("NoRoom: The weights of org/m need 1,000,000.0 GB more in ")
    assert "set HF_HOME" in answer
    assert not [path for method, path, _ in hub.requests if method == "GET" and "sors" in path]


BROKEN_DISK = """
import errno, os, pathlib
real_open = pathlib.Path.open
def open_on_broken_disk(self, *rest, **options):
    if self.name.endswith("partial"):
        raise OSError(getattr(errno, os.environ["DISK"]), "no")
    return real_open(self, *rest, **options)
pathlib.Path.open = open_on_broken_disk
"""


@pytest.mark.parametrize(("code", "says"), [("ENOSPC", "is full"), ("EACCES", "cannot be written")])
def test_a_disk_that_fails_on_the_way_is_a_sentence(hub, tmp_path, code, says):
    """Another process may take the room; the place and HF_HOME are named."""
    answer = fetch(hub, tmp_path, "org/m", script=BROKEN_DISK + FETCH, DISK=code)["org/m"]

    assert answer.startswith("NoRoom: ")
    assert says in answer
    assert "HF_HOME" in answer


def test_a_record_holds_the_commit(tiny_llama, tmp_path, monkeypatch):
    """A branch moves on; what was measured has the commit, and its sizes need no hub."""
    folder = tiny_llama(num_layers=1)
    with serving_hub(folder) as hub:
        fetch(hub, tmp_path, "org/m@v1")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    loaded = loading.load("org/m@v1")

    assert facts.model_facts(loaded).commit == COMMITS["v1"]
    assert sizes.read_sizes("org/m@v1").num_layers == 1
    assert loading.disk_bytes("org/m@v1") == (folder / "model.safetensors").stat().st_size
