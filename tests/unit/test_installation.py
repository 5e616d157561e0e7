"""Where an installed explorer runs, keeps its results, and what it says of itself."""

import getpass
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import explorer
from explorer import __main__ as entry
from explorer import paths
from explorer.cli import app, machine_report
from explorer.store import example_study


@pytest.fixture
def data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory without EXPLORER_RESULTS; the user's own data folder."""
    monkeypatch.delenv("EXPLORER_RESULTS")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return paths.user_store()


def test_results_go_to_the_data_folder_unless_there_is_a_results_folder(
    data_folder, tmp_path, monkeypatch
):
    """EXPLORER_RESULTS first, then results/ where it exists, else the user's data folder."""
    assert paths.store_root() == data_folder
    assert data_folder.is_relative_to(tmp_path)

    Path("results").mkdir()
    assert paths.store_root() == Path("results")

    monkeypatch.setenv("EXPLORER_RESULTS", "/elsewhere")
    assert paths.store_root() == Path("/elsewhere")


def test_the_example_study_is_copied_once_and_only_to_a_new_store(tmp_path):
    """A run that the user deleted does not come back, and own results are never touched."""
    study = tmp_path / "packed"
    (study / "run-1").mkdir(parents=True)
    (study / "run-1" / "record.json").write_text("{}")
    (study / "run-1" / "record.json").chmod(0o444)
    store = tmp_path / "data" / "results"

    assert example_study.copy_to_new_store(store, study)
    assert (store / "run-1" / "record.json").stat().st_mode & 0o200, "the copy can be changed"
    (store / "run-1" / "record.json").unlink()

    assert not example_study.copy_to_new_store(store, study)
    assert not (store / "run-1" / "record.json").exists()
    assert [path.name for path in store.parent.iterdir()] == ["results"]


def test_a_checkout_has_no_packed_study_and_copies_nothing(tmp_path):
    """Without the packed study a new store stays absent."""
    assert not example_study.copy_to_new_store(tmp_path / "new", tmp_path / "missing")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("platform", "python", "said"),
    [
        ("win32", (3, 12, 0), "WSL 2"),
        ("linux", (3, 10, 4), "Python 3.11 or newer is required, and this is 3.10"),
        ("linux", (3, 11, 7), None),
        ("darwin", (3, 13, 0), None),
    ],
)
def test_an_unsupported_machine_gets_a_sentence(platform, python, said):
    """Windows and an old Python are told what to do; Linux and macOS run."""
    reason = entry.unsupported(platform, python)

    assert reason is None if said is None else said in reason


@pytest.mark.parametrize(
    ("variables", "no_proxy"),
    [
        ({"PATH": "x"}, None),
        ({"HTTPS_PROXY": "http://p"}, "localhost,127.0.0.1,::1"),
        ({"all_proxy": "http://p", "no_proxy": "a.org,localhost"}, "a.org,localhost,127.0.0.1,::1"),
        ({"http_proxy": "http://p", "no_proxy": "*"}, "*"),
    ],
)
def test_a_proxy_keeps_away_from_this_machine(variables, no_proxy):
    """Whatever library asks: the addresses of loopback join those that need no proxy."""
    entry.keep_loopback_direct(variables)

    assert variables.get("no_proxy") == no_proxy


def test_the_sentence_is_all_that_an_unsupported_machine_sees():
    """No traceback: one line on standard error and exit code 1."""
    code = (
        "import sys; sys.platform = 'win32'\n"
        "from explorer.__main__ import main\nsys.argv = ['explorer', 'ls']\nmain()"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=False
    )

    assert done.returncode == 1
    assert done.stderr.startswith("error: Linux or macOS is required")
    assert len(done.stderr.splitlines()) == 1


def test_the_version_is_printed():
    """`explorer --version` names the version of the package."""
    result = CliRunner().invoke(app, ["--version"])

    assert result.exit_code == 0
    assert result.output == f"explorer {explorer.__version__}\n"


def test_a_shell_completes_commands():
    """Bash gets the commands that begin as typed: what `--install-completion` sets up works."""
    environment = os.environ | {
        "_EXPLORER_COMPLETE": "complete_bash",
        "COMP_WORDS": "explorer pub",
        "COMP_CWORD": "1",
    }

    done = subprocess.run(
        [sys.executable, "-m", "explorer"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )

    assert done.stdout.split() == ["published"]


def test_the_report_for_bug_reports_identifies_nobody(store_root, monkeypatch, tmp_path):
    """No home folder, user, host, store path, run name, key or value of a variable is in it."""
    monkeypatch.setenv("EXPLORER_ENDPOINT_KEY", "sk-secret")
    monkeypatch.setenv("HOME", str(tmp_path / "home-of-jane"))
    monkeypatch.setattr(socket, "gethostname", lambda: "janes-laptop")
    monkeypatch.setattr(getpass, "getuser", lambda: "jane")
    (store_root / "my-private-run").mkdir()
    (store_root / "my-private-run" / "record.json").write_text("{")

    result = CliRunner().invoke(app, ["doctor", "--report"])

    assert result.exit_code == 0
    for secret in ("sk-secret", "jane", str(tmp_path), "my-private-run"):
        assert secret not in result.output
    for fact in ("Python: 3.", "torch 2.", "EXPLORER_ENDPOINT_KEY", "no runs; 1 unreadable"):
        assert fact in result.output, result.output


def test_redaction_replaces_names_but_not_parts_of_words(monkeypatch):
    """A path below the home folder starts with ~; a word that contains the user's name stays."""
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.setattr(socket, "gethostname", lambda: "box")
    monkeypatch.setattr(getpass, "getuser", lambda: "ann")

    text = machine_report.redact("/home/ann/x on box by ann: channel boxes /home/annette")

    assert text == "~/x on HOST by USER: channel boxes /home/annette"
