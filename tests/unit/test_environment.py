import hashlib
import re
import socket

import pytest
import torch

from explorer.pipeline import environment
from explorer.records import Environment


def test_environment_says_what_decides_numbers():
    """Device, cores, memory and the versions of the deciding libraries are known."""
    found = environment.environment(torch.device("cpu"), threads=2)

    assert found.device == "cpu"
    assert found.threads == 2
    assert re.fullmatch(r".+ \(\d+ cores?\)", found.device_name)
    assert f"({found.num_cpus} core" in found.device_name
    assert found.memory_bytes > 2**28
    assert {"explorer", "torch", "transformers", "lm-eval", "accelerate", "tokenizers"} <= set(
        found.versions
    )
    assert Environment.model_validate_json(found.model_dump_json()) == found


def test_environment_names_no_machine():
    """The host's name is in no field; its hash tells machines apart."""
    found = environment.environment(torch.device("cpu"), threads=1)

    expected = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
    assert found.hostname_hash == expected
    others = found.model_dump_json(exclude={"hostname_hash"})
    assert f'"{socket.gethostname()}"' not in others


@pytest.mark.parametrize(
    ("flags", "known"),
    [(["sse2", "avx512_bf16"], True), (["amx_bf16"], True), (["bf16"], True), (["avx2"], False)],
)
def test_a_processor_says_whether_it_multiplies_in_bfloat16(monkeypatch, flags, known):
    """By the flags that x86 and ARM have for it; one that says nothing has none."""
    monkeypatch.setattr(environment, "_cpu_info", lambda: {"flags": flags})
    assert environment.computes_bfloat16() is known
    monkeypatch.setattr(environment, "_cpu_info", dict)
    assert not environment.computes_bfloat16()


def test_commit_marks_a_changed_tree(monkeypatch):
    """A commit with local changes is not passed off as the commit itself."""
    said = {"rev-parse": "abc1234", "status": " M explorer/pipeline/stages.py"}
    monkeypatch.setattr(environment, "_git", lambda root, *arguments: said[arguments[0]])
    assert environment.commit() == "abc1234+changes"

    said["status"] = ""
    assert environment.commit() == "abc1234"


def test_no_git_is_no_error(monkeypatch, tmp_path):
    """An installed package outside a checkout, or a machine without git, has no commit."""
    assert environment._git(tmp_path, "rev-parse", "HEAD") is None
    monkeypatch.setenv("PATH", "")
    assert environment._git(tmp_path, "--version") is None
