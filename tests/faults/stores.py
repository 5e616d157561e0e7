"""Small stores to spoil, made once by real runs: finished, and interrupted in a training."""

import contextlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from streamlit.testing.v1 import AppTest

from explorer import pipeline
from explorer.catalogue import prices
from explorer.catalogue.prices import Price
from explorer.errors import ExplorerError
from explorer.index import store_index
from explorer.pages.dashboard import web_guard
from explorer.pages.shared import findings
from explorer.pipeline import preflight_server
from explorer.records import RunRecord
from explorer.specs import RunSpec
from explorer.store import disk, trash
from tests import records
from tests.conftest import ROOT, _save_tiny_llama
from tests.faults.faults import Bad, in_process

PAGES = ("explore", "run", "compare", "answers", "tasks", "economics", "published")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink")

OnChange = Callable[[int, str], None]
"""Called before each change of a store with its number and what it is."""


class Stores:
    """The model, the text, and the templates of stores, in a folder."""

    STUDY_LAYERS = (10,)

    def __init__(self, folder: Path) -> None:
        """Make the model; `make_templates` makes the stores."""
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.cache = folder / "cache"
        os.environ["EXPLORER_CACHE"] = str(self.cache)
        os.environ["EXPLORER_CONFIG"] = str(folder / "config.yaml")
        allowed = str(ROOT / "tests" / "tasks")
        (folder / "config.yaml").write_text(json.dumps({"allowed_task_code": [allowed]}))
        self.finished, self.interrupted = folder / "finished", folder / "interrupted"
        self.study = folder / "study"
        """A teacher and a student with every part of a record, not by a run."""
        self.unbroken: dict[str, Any] = {}
        """What `outcome_of` says of the unbroken run."""
        self.num_changes = 0
        self.stages: list[str] = []
        """Every progress update of the unbroken run, by its stage."""

    def make_templates(self) -> None:
        """Run once without a fault, and once into a kill in the middle of the training."""
        in_process(lambda: _save_tiny_llama(self.folder / "model", 4, 32, 320, 0), self.folder)
        text = "\n\n".join(f"Document {i} says that {i} is a number." for i in range(80))
        (self.folder / "corpus.txt").write_text(text)

        records.write_study(self.study, layers=self.STUDY_LAYERS)

        def unbroken() -> Any:
            enter(self.finished)
            changes, stages = [], []
            with watched(self.finished, lambda number, what: changes.append(what)):
                pipeline.run(
                    self.spec, self.finished, lambda status: stages.append(status["stage"])
                )
            prices.write_override(
                self.finished / prices.OVERRIDES, "a device", Price(usd_per_hour=1.0)
            )
            other = self.spec.with_(name="hidden", distill=None, student=None, capability=None)
            disk.open_run(self.finished, other)
            trash.hide(self.finished, [other.run_id])
            return [outcome_of(self.finished, self.spec), len(changes), stages]

        self.unbroken, self.num_changes, self.stages = in_process(unbroken, self.folder)

        def broken() -> None:
            enter(self.interrupted)

            def stop(number: int, what: str) -> None:
                checkpoints = self.interrupted.glob(".work/students/*/checkpoint.old/state.json")
                if any(checkpoints):
                    os.kill(os.getpid(), signal.SIGKILL)

            with watched(self.interrupted, stop):
                pipeline.run(self.spec, self.interrupted)

        in_process(broken, self.folder)
        assert any(self.interrupted.glob(".work/students/*/checkpoint*/state.json"))

    @property
    def spec(self) -> RunSpec:
        """A run that takes a second: half of a tiny teacher, trained and evaluated."""
        return RunSpec.parse(
            {
                "name": "tiny",
                "teacher": str(self.folder / "model"),
                "student": {"num_layers": 2, "sample_blocks": 2},
                "distill": {
                    "corpus": str(self.folder / "corpus.txt"),
                    "max_tokens": 600,
                    "block_tokens": 16,
                    "heldout_blocks": 4,
                    "top_k": 8,
                    "eval_every_steps": 4,
                    "checkpoint_every_s": 0.001,
                },
                "capability": {
                    "tasks": ["tiny_pairs"],
                    "include_path": str(ROOT / "tests" / "tasks"),
                    "batch_size": 4,
                },
                # Timing starts a process for the memory, which takes ten seconds.
                "latency": None,
                "device": "cpu",
                "threads": 1,
            }
        )

    @property
    def timed(self) -> RunSpec:
        """The same run with a timing, which takes longer than all the rest."""
        latency = {"prompt_tokens": 8, "output_tokens": 4, "warmup": 0, "repeats": 2}
        return RunSpec.parse({**self.spec.model_dump(), "latency": latency})

    def copy(self, template: Path, folder: Path) -> Path:
        """A store to spoil."""
        root = folder / "results"
        shutil.copytree(template, root, symlinks=True)
        enter(root)
        return root

    def go_on(self, root: Path, folder: Path, spec: RunSpec | None = None) -> None:
        """Run the run again, in a new process, and compare what it comes to.

        Raises:
            Bad: It fails, or scores or losses differ from the unbroken run.
        """

        def resume() -> Any:
            enter(root)
            teacher = self.spec.teacher_run()
            assert teacher is not None
            try:
                pipeline.run(spec or self.spec, root)
                # Has a result, unless its record was damaged.
                pipeline.run(teacher, root)
            except ExplorerError as error:
                raise Bad("stuck", f"resumed: {type(error).__name__}: {error}") from error
            return outcome_of(root, spec or self.spec)

        resumed = in_process(resume, folder)
        if resumed is None:
            raise Bad("stuck", "the resumed run was killed")
        self.compare(resumed)

    def compare(self, outcome: dict[str, Any]) -> None:
        """Compare what a run came to with the unbroken one.

        Raises:
            Bad: Scores or losses differ.
        """
        plain = json.loads(json.dumps(outcome))
        for name, value in self.unbroken.items():
            if plain[name] != value:
                raise Bad("lost", f"{name} is {plain[name]!s:.120}, unbroken {value!s:.120}")


def enter(root: Path) -> None:
    """Let this process work on a store, with an index of its own."""
    os.environ["EXPLORER_RESULTS"] = str(root)
    os.environ["EXPLORER_INDEX"] = str(root.parent / f"index-of-{root.name}")
    os.environ["HF_DATASETS_CACHE"] = str(root.parent / "datasets")
    os.environ["EXPLORER_DEVICE_LOCKS"] = str(root.parent / "device-locks")
    os.environ["EXPLORER_TOKEN"] = "off"
    store_index.LOOK_EVERY_S = 0.0


def outcome_of(root: Path, spec: RunSpec) -> dict[str, Any]:
    """Scores and losses of a run and its teacher's, as plain data."""
    teacher = spec.teacher_run()
    assert teacher is not None
    student = disk.load(root, spec.run_id)
    assert student.distillation is not None
    assert student.model is not None
    return {
        "scores": _scores(student),
        "teacher's scores": _scores(disk.load(root, teacher.run_id)),
        "losses": [[p.step, p.loss, p.heldout_kl] for p in student.distillation.curve],
        "layers": student.model.kept_layers,
        "answers": disk.load_answers(root, spec.run_id).astype(str).to_numpy().tolist(),
    }


def _scores(record: RunRecord) -> list[Any]:
    assert record.capability is not None
    return [[s.task, s.metric, s.score, s.num_documents] for s in record.capability.scores]


def shown(root: Path) -> dict[str, Any]:
    """What pages and commands take from a store: its rows, and what they say is damaged."""
    index = store_index.StoreIndex(root)
    index.update()
    rows = json.loads(index.runs().to_json(orient="records"))
    index.models([row["run_id"] for row in rows])  # reads the answers
    scores = json.loads(index.scores().to_json(orient="records"))
    means = {
        run_id: {task: str(float(a.values_N.mean())) for (task, _), a in model.answers.items()}
        for run_id, model in index.models([row["run_id"] for row in rows]).items()
    }
    return {
        "rows": {row["run_id"]: row for row in rows},
        "scores": scores,
        "answers": means,
        "hidden": sorted(index.hidden()),
        "problems": index.problems(),
    }


def open_pages(root: Path, pages: tuple[str, ...] = PAGES) -> None:
    """Draw pages without a browser; the check of the order in the form is made in this process.

    Raises:
        Bad: One shows an exception.
    """
    findings.start_soon = lambda: None  # type: ignore[assignment]
    findings.ask = _checked_here
    for name in pages:
        page = AppTest.from_file(str(web_guard.SCRIPT), default_timeout=120)
        if name != "explore":
            page.switch_page(f"../{name}/{name}.py")
        try:
            page.run()
        except Exception as error:
            raise Bad("pages_down", f"{name}: {type(error).__name__}: {error!s:.200}") from error
        if page.exception:
            shown = page.exception[0]
            trace = " ".join(shown.stack_trace[-3:]) if shown.stack_trace else ""
            raise Bad("pages_down", f"{name}: {shown.value!s:.200} {trace!s:.400}")


def _checked_here(request: dict[str, Any]) -> "Future[dict[str, Any]]":
    answer: Future[dict[str, Any]] = Future()
    answer.set_result(preflight_server.answer(request))
    return answer


_watching: list[tuple[str, OnChange, list[int]]] = []


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    """Tell who watches a store of each change of it. Audit hooks cannot be removed."""
    if not _watching:
        return
    if event == "open":
        path, _, flags = arguments
        if not (isinstance(flags, int) and flags & WRITES):
            return
    elif event in CHANGES:
        path = arguments[1] if event == "os.symlink" else arguments[0]
    else:
        return
    if isinstance(path, str | bytes | os.PathLike):
        _changed(event, os.fsdecode(path))


def _changed(event: str, path: str) -> None:
    for root, on_change, numbers in _watching:
        if path.startswith(root) and not path.endswith(".lock"):
            numbers[0] += 1
            on_change(numbers[0] - 1, f"{event} {path.removeprefix(root)}")


sys.addaudithook(_audit)


@contextlib.contextmanager
def watched(root: Path, on_change: OnChange) -> Iterator[None]:
    """Call `on_change` before each change of the store, fsync included."""
    fsync = os.fsync

    def flush(descriptor: int) -> None:
        with contextlib.suppress(OSError):
            _changed("fsync", os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    os.fsync = flush
    _watching.append((str(root), on_change, [0]))
    try:
        yield
    finally:
        _watching.pop()
        os.fsync = fsync
