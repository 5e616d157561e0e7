"""Which results files of a folder make one run.

A results file is one evaluation: a model, its settings, a date. A run never takes its numbers from
two evaluations unless they are known to be parts of one. What else lies in the folder is named, so
that a person can choose.

Source of the fields: github.com/EleutherAI/lm-evaluation-harness, `loggers/evaluation_tracker.py`
and `evaluator.py`; for 0.4.0 to 0.4.2 `__main__.py`.
"""

import dataclasses
import datetime
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from explorer.errors import BadInput
from explorer.lm_eval_io import samples

NAME_KEYS = ("peft", "delta", "pretrained", "model", "path", "engine")
"""Arguments that name the model, in lm-eval's order: an adapter comes before its base model."""
OF_THE_MACHINE = frozenset(
    {
        *("device", "parallelize", "device_map_option", "max_memory_per_gpu", "offload_folder"),
        *("batch_size", "max_batch_size", "cache_dir", "tensor_parallel_size", "num_concurrent"),
        *("data_parallel_size", "gpu_memory_utilization", "max_retries", "timeout"),
    }
)
"""Arguments that decide where a model runs, not which model it is."""
MOST_NAMED = 8
"""Evaluations that an error lists."""


class SeveralEvaluations(BadInput):
    """A folder holds several evaluations, and a run has one."""

    def __init__(self, found: str, choices: list[str], *, can_combine: bool) -> None:
        """Say what there is, and how the command line chooses.

        Args:
            found: The evaluations, in words.
            choices: The path of each results file inside the folder, for `only`.
            can_combine: Whether all are of one model under the same settings.
        """
        advice = f"Choose one by a part of its path, as in: --only {choices[0]}"
        if can_combine:
            advice += " (or make one run of all: --combine)"
        super().__init__(f"{found} {advice}")
        self.found, self.choices, self.can_combine = found, choices, can_combine


@dataclasses.dataclass(frozen=True)
class ResultsFile:
    """One results file: one evaluation."""

    path: Path
    name: str
    """Its path inside the folder, with slashes."""
    document: dict[str, Any]
    digest: str
    """SHA-256 of the file."""
    tasks: tuple[str, ...]
    """The tasks that have a number, without groups."""

    @property
    def date(self) -> float | None:
        """Seconds since 1970: the date inside the file; of the name only if it states none."""
        stated = self.document.get("date")
        if is_date(stated):
            return float(stated)
        if match := samples.DATE.search(self.path.name):
            day, _, clock = match[0].partition("T")
            try:
                moment = datetime.datetime.fromisoformat(f"{day}T{clock.replace('-', ':')}")
            except ValueError:
                return None  # digits that are no date, such as 2026-13-40
            return moment.replace(tzinfo=datetime.UTC).timestamp()
        return None

    @property
    def states_date(self) -> bool:
        """Whether the date is inside the file. A name has the local time of an unknown place."""
        return is_date(self.document.get("date"))

    def in_words(self) -> str:
        """`acme__big/results_….json (acme/big, 2026-10-01 10:00 UTC: taskone, tasktwo)`."""
        when = "no date"
        if self.date is not None:
            when = f"{datetime.datetime.fromtimestamp(self.date, datetime.UTC):%Y-%m-%d %H:%M} UTC"
        tasks = ", ".join(self.tasks[:3]) + (" …" if len(self.tasks) > 3 else "")
        return f"{self.name} ({model_name(self.document)}, {when}: {tasks})"


def one_evaluation(
    files: Sequence[ResultsFile], only: str = "", *, combine: bool = False
) -> tuple[list[ResultsFile], list[str]]:
    """The files that make one run, the newest first.

    One file; or the files that this explorer wrote for one model, task by task; or, with
    `combine`, all files of one model and one set of settings. Of two evaluations of the same
    model, settings and tasks the newer one counts.

    Args:
        files: All results files of a folder.
        only: A part of the path of the file that is meant.
        combine: Whether files of one model and one set of settings make one run.

    Returns:
        The files, and a sentence for each that is left out.

    Raises:
        SeveralEvaluations: It is not clear which evaluation is meant.
        BadInput: No file's path has `only` in it.
    """
    # Of files with the same bytes one is enough.
    wanted = [file for file in files if file.name == only] or [f for f in files if only in f.name]
    chosen = list({file.digest: file for file in wanted}.values())
    if files and not chosen:
        names = ", ".join(file.name for file in files[:MOST_NAMED])
        raise BadInput(f"No results file has {only!r} in its path. There is {names}.")
    if len(chosen) < 2:
        return chosen, []
    newest_first = sorted(chosen, key=lambda file: (file.date or 0.0, file.name), reverse=True)
    if differ := differences([file.document for file in chosen]):
        raise _several(newest_first, f"They differ in: {', '.join(differ)}.", can_combine=False)
    tasks = [task for file in chosen for task in file.tasks]
    comparable = len({file.states_date for file in chosen}) == 1
    undated = not comparable or any(file.date is None for file in chosen)
    if undated and len(set(tasks)) < len(tasks):
        raise _several(newest_first, "No date says which is the newest.", can_combine=False)
    if combine or _is_ours(chosen):
        return newest_first, []
    newest, older = newest_first[0], newest_first[1:]
    missing = sorted({task for file in older for task in file.tasks} - set(newest.tasks))
    if missing:
        raise _several(
            newest_first,
            f"The newest has no {', '.join(missing[:3])}, so it does not replace the others.",
            can_combine=True,
        )
    return [newest], [
        f"{file.name} is left out: {newest.name} is a newer evaluation of the same model."
        for file in older
    ]


def settings(document: Mapping[str, Any]) -> dict[str, str]:
    """What decides the numbers of an evaluation, by the name that a sentence gives it."""
    config = mapping(document.get("config"))
    arguments = {
        key: value for key, value in arguments_of(config).items() if key not in OF_THE_MACHINE
    }
    named = {
        "model": model_name(document),
        "back end": config.get("model"),
        "checkpoint": [config.get("model_sha"), config.get("model_revision")],
        "model arguments": arguments,
        "number format": config.get("model_dtype"),
        "chat template": document.get("chat_template") or config.get("apply_chat_template"),
        "system prompt": document.get("system_instruction"),
        "examples as turns": document.get("fewshot_as_multiturn"),
        "generation settings": config.get("gen_kwargs"),
        "limit": config.get("limit"),
    }
    return {name: _plain(value) for name, value in named.items()}


def differences(documents: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the settings in which evaluations differ; of shots only for tasks in several."""
    known = [settings(document) for document in documents]
    differ = [name for name in known[0] if len({one[name] for one in known}) > 1]
    shots: dict[str, str] = {}
    for document in documents:
        for task, count in _shots(document).items():
            if shots.setdefault(task, _plain(count)) != _plain(count):
                return [*differ, "number of shots"]
    return differ


def model_name(document: Mapping[str, Any]) -> str:
    """The model's name as lm-eval wrote it, else the kind of model."""
    config = mapping(document.get("config"))
    arguments = arguments_of(config)
    for name in (document.get("model_name"), *(arguments.get(key) for key in NAME_KEYS)):
        if isinstance(name, str) and name:
            return storable(name)
    return text(config.get("model")) or "imported model"


def arguments_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """lm-eval's `--model_args`, which some versions wrote as text."""
    arguments = config.get("model_args")
    if isinstance(arguments, str):
        pairs = (part.partition("=") for part in arguments.split(","))
        return {key.strip(): value.strip() for key, _, value in pairs if key.strip()}
    return mapping(arguments)


def storable(value: str) -> str:
    """A name on one line: what cannot be shown, such as half a character, is a question mark."""
    return "".join(sign if sign.isprintable() else "?" for sign in value[:200])


def text(value: Any) -> str | None:
    """A text that is not empty, storable; else None."""
    return storable(value) if isinstance(value, str) and value else None


def mapping(value: Any) -> dict[str, Any]:
    """The value if it is a mapping, else an empty one."""
    return value if isinstance(value, dict) else {}


def is_date(value: Any) -> TypeGuard[float]:
    """Whether a value can be seconds since 1970."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return 0 <= value < 4e9 and math.isfinite(value)


def _is_ours(files: Sequence[ResultsFile]) -> bool:
    """Whether this explorer wrote all of them: it has a file for each task, and the weights' hash.

    The settings, which hold that hash, are known to agree.
    """
    return all("fingerprint" in arguments_of(mapping(f.document.get("config"))) for f in files)


def _several(files: Sequence[ResultsFile], cause: str, *, can_combine: bool) -> SeveralEvaluations:
    shown = "; ".join(file.in_words() for file in files[:MOST_NAMED])
    rest = f"; and {len(files) - MOST_NAMED} more" if len(files) > MOST_NAMED else ""
    found = f"A run is one evaluation, and here are {len(files)}: {shown}{rest}. {cause}"
    return SeveralEvaluations(found, [file.name for file in files], can_combine=can_combine)


def _shots(document: Mapping[str, Any]) -> dict[str, Any]:
    shots, configs = mapping(document.get("n-shot")), mapping(document.get("configs"))
    return {
        task: shots.get(task, mapping(configs.get(task)).get("num_fewshot"))
        for task in mapping(document.get("results"))
    }


def _plain(value: Any) -> str:
    """A value as text that is equal where the values are; empty for what is not there."""
    if value is None or value is False or value in ("", [None, None]):
        return ""
    text = json.dumps(value, sort_keys=True, default=str)
    return text if len(text) < 10_000 else hashlib.sha256(text.encode()).hexdigest()
