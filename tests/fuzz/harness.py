"""Feeds each reader of outside data with mutated valid files, and counts what it does.

    make fuzz
    python -m tests.fuzz.harness --inputs 10000 spec corpus

A crash is anything but the reader's documented refusal: another exception, a hang, memory, a file
written outside the folder, or something accepted that is not what the reader promises.
"""

import argparse
import collections
import contextlib
import dataclasses
import dis
import functools
import hashlib
import inspect
import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.fuzz import mutations
from tests.fuzz.mutations import Mutation

NUM_INPUTS = 10_000
TRACED_INPUTS = 1_500
"""Inputs whose lines are counted, which makes Python several times slower."""
HANG_S = 5.0
MEMORY_BYTES = 1_000_000_000
LEAST_ACCEPTED, LEAST_COVERAGE = 0.2, 0.9
LARGE_BYTES = 100_000
"""A larger valid file is read as it is, and not mutated."""
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


@dataclasses.dataclass(frozen=True)
class Reader:
    """A reader of outside data, and how it is fed."""

    name: str
    seeds: Callable[[], list[tuple[str, bytes]]]
    """Valid files: name and content."""
    read: Callable[[str, bytes, Path], Any]
    """Reads a file of this name and content in this folder, and checks what it promises."""
    refusals: tuple[type[Exception], ...]
    """How it refuses."""
    code: tuple[Any, ...]
    """Modules, classes and functions that belong to it."""
    mutate: tuple[Mutation, ...] = ()
    """Mutations that know the format, besides those of bytes and lines."""
    not_code: frozenset[str] = frozenset()
    """Names in `code` that do not belong to it."""
    folder_matters: bool = False
    """Whether what it writes may be anywhere in the folder, which is then new for each input."""


class Hang(BaseException):
    """An input took too long; not an Exception, which readers might catch."""


@dataclasses.dataclass
class Outcome:
    """What a reader did with its inputs."""

    reader: str
    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    coverage: float = 0.0
    crashes: int = 0
    causes: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    """Crashes by cause."""
    missed: list[str] = dataclasses.field(default_factory=list)
    """Lines that no input reached."""

    def problems(self) -> list[str]:
        """Why it is not good enough; empty if it is."""
        found = [f"{count} x {cause}" for cause, count in self.causes.most_common()]
        if self.accepted < LEAST_ACCEPTED * self.inputs:
            found.append(f"only {self.accepted} of {self.inputs} inputs were accepted")
        if self.coverage < LEAST_COVERAGE:
            found.append(f"coverage {self.coverage:.1%}: {', '.join(self.missed)}")
        return found


def fuzz(reader: Reader, num_inputs: int, seed: int = 0, *, save: Path | None = None) -> Outcome:
    """Feed one reader; inputs that crash it are written into `save`."""
    outcome = Outcome(reader.name)
    rng = random.Random(f"{reader.name} {seed}")
    seeds, valid = reader.seeds(), []
    small = [seed for seed in seeds if len(seed[1]) < LARGE_BYTES]
    lines = _lines_of(reader)
    reached: set[tuple[str, int]] = set()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name, _watched(Path(name)) as written:
        folder = Path(name)
        _forget_peak()
        peak = _peak_bytes()
        for number in range(num_inputs):
            if number < len(seeds):
                file, content = seeds[number]
            else:
                file, content = rng.choice(valid if valid and rng.random() < 0.75 else small)
                content = mutations.mutated(content, reader.mutate, rng)
            inside = folder / str(number) if reader.folder_matters else folder
            inside.mkdir(exist_ok=True)
            written.clear()
            traced = number < TRACED_INPUTS
            cause = None
            try:
                with _deadline(), _traced(lines, reached) if traced else contextlib.nullcontext():
                    reader.read(file, content, inside)
                outcome.accepted += 1
                if number < len(seeds) and len(content) < LARGE_BYTES:
                    valid.append(seeds[number])
            except reader.refusals as error:
                outcome.refused += 1
                if not str(error).strip():
                    cause = "a refusal without a word"
            except (Exception, Hang) as error:
                cause = _cause(error)
            grown = _peak_bytes() - peak
            if grown > MEMORY_BYTES:
                cause, peak = f"memory above {MEMORY_BYTES / 1e9:g} GB", peak + grown
            if written:
                cause = f"wrote {written[0]}"
            outcome.inputs += 1
            if cause:
                outcome.causes[cause] += 1
                if save and outcome.causes[cause] == 1:
                    digest = hashlib.sha256(content).hexdigest()[:8]
                    (save / f"{reader.name}-{digest}-{Path(file).name}").write_bytes(content)
    outcome.crashes = sum(outcome.causes.values())
    outcome.coverage = len(reached & lines) / len(lines)
    outcome.missed = _in_words(lines - reached)
    return outcome


def _forget_peak() -> None:
    """Let the process's peak begin at what it holds now: earlier work may have held more."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _peak_bytes() -> int:
    """The most memory that the process has held; since `_forget_peak`, where Linux allows it."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return 1024 * int(re.search(r"VmHWM:\s+(\d+)", status)[1])


def _cause(error: BaseException) -> str:
    """The exception and the last line of ours that it came through."""
    if isinstance(error, Hang):
        return f"a hang above {HANG_S:g} s"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/explorer/" in f.filename]
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}: {error!s:.80}{place}"


@contextlib.contextmanager
def _deadline() -> Iterator[None]:
    def stop(number: int, frame: Any) -> None:
        raise Hang

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, HANG_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


_folder: Path | None = None
_outside: list[str] = []
_is_hooked = False


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    """Note what is written outside the folder. Audit hooks cannot be removed."""
    if _folder is None:
        return
    if event == "open":
        path, _, flags = arguments
        paths = [path] if isinstance(flags, int) and flags & WRITES else []
    elif event in ("os.mkdir", "os.remove", "os.rmdir") and arguments[-1] == -1:
        paths = [arguments[0]]  # relative to no other folder
    elif event in ("os.rename", "os.link") and arguments[-1] == -1:
        paths = list(arguments[:2])
    elif event == "os.symlink":
        paths = [arguments[1]]
    else:
        return
    for path in paths:
        if isinstance(path, str | bytes | os.PathLike):
            whole = os.path.abspath(os.fsdecode(path))
            if (
                not whole.startswith((f"{_folder}", "/dev/", "/proc/"))
                and "__pycache__" not in whole
            ):
                _outside.append(f"{event} {whole}")


@contextlib.contextmanager
def _watched(folder: Path) -> Iterator[list[str]]:
    """A list of what is written outside a folder, which is also the one for temporary files."""
    global _folder, _is_hooked
    if not _is_hooked:
        sys.addaudithook(_audit)
        _is_hooked = True
    temporary, tempfile.tempdir = tempfile.tempdir, str(folder)
    _folder = folder
    try:
        yield _outside
    finally:
        _folder, tempfile.tempdir = None, temporary


def _lines_of(reader: Reader) -> frozenset[tuple[str, int]]:
    """File and number of each line in the reader's functions."""
    return frozenset(
        line for part in reader.code for code in _codes(part, reader) for line in _lines(code)
    )


def _codes(part: Any, reader: Reader) -> Iterator[types.CodeType]:
    """The code of a function, or of those defined in a class or module."""
    part = getattr(part, "fget", None) or getattr(part, "wrapped", None) or part
    part = getattr(part, "__func__", None) or part
    part = inspect.unwrap(part) if callable(part) and not isinstance(part, type) else part
    if isinstance(part, types.FunctionType):
        yield part.__code__
    elif isinstance(part, type | types.ModuleType):
        home = part.__name__ if isinstance(part, types.ModuleType) else part.__module__
        for name, member in vars(part).items():
            belongs = getattr(member, "__module__", home) == home
            belongs = belongs and not isinstance(member, types.ModuleType)
            if belongs and name not in reader.not_code and not name.startswith("__"):
                yield from _codes(member, reader)


def _lines(code: types.CodeType) -> Iterator[tuple[str, int]]:
    for _, line in dis.findlinestarts(code):
        if line and line != code.co_firstlineno:
            yield code.co_filename, line
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _lines(constant)


@contextlib.contextmanager
def _traced(lines: frozenset[tuple[str, int]], reached: set[tuple[str, int]]) -> Iterator[None]:
    """Note the lines that this thread reaches."""
    files = {file for file, _ in lines}

    def local(frame: types.FrameType, event: str, argument: Any) -> Any:
        if event == "line":
            reached.add((frame.f_code.co_filename, frame.f_lineno))
        return local

    def start(frame: types.FrameType, event: str, argument: Any) -> Any:
        return local if frame.f_code.co_filename in files else None

    before = sys.gettrace()
    sys.settrace(start)
    try:
        yield
    finally:
        sys.settrace(before)


def _in_words(lines: Any) -> list[str]:
    by_file: dict[str, list[int]] = {}
    for file, line in sorted(lines):
        by_file.setdefault(Path(file).name, []).append(line)
    return [f"{file} {' '.join(map(str, numbers))}" for file, numbers in by_file.items()]


def main() -> None:
    """Fuzz readers side by side, a process each, and print a JSON line for each."""
    from tests.fuzz.readers import READERS

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("readers", nargs="*", default=list(READERS))
    parser.add_argument("--inputs", type=int, default=NUM_INPUTS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--save", type=Path, help="a folder for inputs that crash")
    parser.add_argument("--here", action="store_true", help="in this process")
    options = parser.parse_args()
    began = time.monotonic()
    if options.here:
        outcomes = [
            fuzz(READERS[name], options.inputs, options.seed, save=options.save)
            for name in options.readers
        ]
        for outcome in outcomes:
            line = {**dataclasses.asdict(outcome), "causes": dict(outcome.causes)}
            print(json.dumps(line | {"seconds": round(time.monotonic() - began, 1)}))
        return
    failed = False
    waiting, running = list(options.readers), {}
    while waiting or running:
        while waiting and len(running) < options.processes:
            name = waiting.pop(0)
            running[name] = _child(name, options)
        for name, child in list(running.items()):
            if child.poll() is None:
                continue
            del running[name]
            failed |= not _report(name, child)
        time.sleep(0.1)
    print(json.dumps({"seconds": round(time.monotonic() - began, 1)}), flush=True)
    sys.exit(failed)


def _child(name: str, options: argparse.Namespace) -> "subprocess.Popen[str]":
    arguments = [name, "--here", "--inputs", str(options.inputs), "--seed", str(options.seed)]
    arguments += ["--save", str(options.save)] if options.save else []
    command = [sys.executable, "-m", "tests.fuzz.harness", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _report(name: str, child: "subprocess.Popen[str]") -> bool:
    """Print what a child found; whether it is good enough."""
    text = child.stdout.read() if child.stdout else ""
    if child.returncode or not text.strip():
        print(json.dumps({"reader": name, "crashes": 1, "exit": child.returncode}), flush=True)
        return False
    line = json.loads(text.strip().splitlines()[-1])
    outcome = Outcome(
        **{field: line[field] for field in ("reader", "inputs", "accepted", "coverage", "missed")},
        causes=collections.Counter(line["causes"]),
    )
    shown = {key: line[key] for key in ("reader", "inputs", "accepted", "refused")}
    shown |= {"coverage": round(line["coverage"], 3), "crashes": line["crashes"]}
    print(json.dumps(shown | {"seconds": line["seconds"]}), flush=True)
    for problem in outcome.problems():
        print(f"{name}: {problem}", file=sys.stderr, flush=True)
    return not outcome.problems()


@functools.cache
def repository() -> Path:
    """The root of the checkout."""
    return Path(__file__).parents[2]


if __name__ == "__main__":
    main()
