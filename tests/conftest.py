"""What all tests share: no hub, no shared store, tiny models, golden files.

Nothing heavy is imported here, so that the fast tests stay fast.
"""

import gc
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import byte_tokenizer

# Before anything imports huggingface_hub, and inherited by every process a test starts.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
# Dashboards of tests are open, whoever else has an account on the machine.
os.environ["EXPLORER_TOKEN"] = "off"

ROOT = Path(__file__).parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite", action="store_true", help="write the golden files anew instead of comparing"
    )


@pytest.fixture(autouse=True, scope="module")
def imports_are_no_garbage() -> None:
    """What is there when a file's tests begin stays: modules above all.

    Streamlit looks for garbage in everything after each page, which takes longer than the page
    where a model library is loaded.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture
def aside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of the test's own outside `tmp_path`, where tests look for what a command leaves.

    Not from `mktemp`, which reads the names of all folders of all earlier tests.
    """
    with tempfile.TemporaryDirectory(
        dir=tmp_path_factory.getbasetemp(), ignore_cleanup_errors=True
    ) as folder:
        yield Path(folder)


@pytest.fixture(autouse=True)
def store_root(tmp_path: Path, aside: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty store of the test's own, and its index; the committed results are out of reach."""
    root, index, locks = tmp_path / "results", aside / "index", aside / "locks"
    for folder in (root, index, locks):
        folder.mkdir()
    monkeypatch.setenv("EXPLORER_RESULTS", str(root))
    monkeypatch.setenv("EXPLORER_INDEX", str(index))
    # A test that times beside another one does not wait for it.
    monkeypatch.setenv("EXPLORER_DEVICE_LOCKS", str(locks))
    return root


@pytest.fixture(autouse=True)
def allow_code(aside: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """A configuration of the test's own, which allows the code of tests/tasks.

    As a function it writes the file anew, to allow the code of other files and folders.
    """
    path = aside / "config.yaml"
    monkeypatch.setenv("EXPLORER_CONFIG", str(path))

    def write(*allowed: Path, task_folders: tuple[Path, ...] = ()) -> Path:
        lists = {"task_folders": task_folders, "allowed_task_code": allowed}
        # JSON is YAML, too.
        text = json.dumps({key: [str(entry) for entry in value] for key, value in lists.items()})
        path.write_text(text, encoding="utf-8")
        return path

    write(ROOT / "tests" / "tasks")
    return write


@pytest.fixture(scope="session")
def chromium_path() -> str:
    """The browser that `make test` found or installed."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = [os.environ.get("CHROME_PATH"), *(shutil.which(name) for name in names)]
    path = next((path for path in found if path), None)
    assert path, "No Chromium or Chrome: `make chromium` installs one, CHROME_PATH names one."
    return path


Golden = Callable[[str, str], None]


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    """Compare a text with tests/golden/files/NAME, or write it there with --rewrite."""

    def check(name: str, text: str) -> None:
        path = ROOT / "tests" / "golden" / "files" / name
        if request.config.getoption("--rewrite"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            return
        assert path.exists(), f"There is no golden file {name}; `make golden` writes it."
        assert text == path.read_text(encoding="utf-8"), (
            f"{name} differs. If the change is meant, run `make golden` and review the diff."
        )

    return check


@pytest.fixture(scope="session")
def task_list(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """lm-eval's tasks as our cache holds them, read once for all workers: a third of a minute."""
    from filelock import FileLock

    from explorer.tasks import index

    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "task_list"
    finished = folder / "finished"
    with FileLock(f"{folder}.lock"), pytest.MonkeyPatch.context() as patch:
        patch.setenv("EXPLORER_CACHE", str(folder))
        if not finished.exists():
            index.build_index()
            finished.touch()
    return folder / "tasks"


@pytest.fixture
def known_tasks(task_list: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own that holds the list; an empty cache of data sets."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("EXPLORER_CACHE", str(cache))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    shutil.copytree(task_list, cache / "tasks")
    return cache


TinyLlama = Callable[..., Path]


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> TinyLlama:
    """A function that makes a random Llama with its tokenizer and returns its folder.

    Same arguments, same weights, made once a session: do not write into the folder.
    """
    made: dict[tuple[int, int, int, int], Path] = {}

    def make(
        num_layers: int = 4, hidden_size: int = 32, vocab_size: int = 320, seed: int = 0
    ) -> Path:
        key = (num_layers, hidden_size, vocab_size, seed)
        if key not in made:
            folder = tmp_path_factory.mktemp("tiny_llama")
            _save_tiny_llama(folder, *key)
            made[key] = folder
        return made[key]

    return make


def _save_tiny_llama(
    folder: Path, num_layers: int, hidden_size: int, vocab_size: int, seed: int
) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    byte_tokenizer.save(folder, vocab_size)
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_hidden_layers=num_layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        LlamaForCausalLM(config).save_pretrained(folder)


@pytest.fixture
def corpus_file(tmp_path: Path) -> Path:
    """A corpus of 80 short documents."""
    path = tmp_path / "corpus.txt"
    path.write_text("\n\n".join(f"Document {i} says that {i} is a number." for i in range(80)))
    return path


@pytest.fixture
def tiny_run(tiny_llama: TinyLlama, corpus_file: Path) -> dict[str, Any]:
    """The order of a run that takes a second: half of a tiny teacher, taught and tested."""
    return {
        "name": "tiny",
        "teacher": str(tiny_llama()),
        "student": {"num_layers": 2, "sample_blocks": 2},
        "distill": {
            "corpus": str(corpus_file),
            "max_tokens": 600,
            "block_tokens": 16,
            "heldout_blocks": 4,
            "top_k": 8,
            "eval_every_steps": 4,
        },
        "capability": {"tasks": ["tiny_pairs"], "include_path": str(ROOT / "tests" / "tasks")},
        "latency": None,
    }
