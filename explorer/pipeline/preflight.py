"""Everything that can be known to be wrong with an order before it computes anything.

An order is one run, a sweep or a search: a list of `RunSpec`s. Each check looks at one part of a
run; a part that several runs share is looked at once. The dashboard asks for the quick checks
while somebody types: configurations, shapes, memory and disk, without the network. Start,
`--dry-run` and the beginning of a run ask for all of them: whole question files, the corpus, the
tokenizer and one small request to an endpoint.

    explorer check study.yaml
    explorer check study.yaml --quick --json
"""

import dataclasses
import logging
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Literal

from explorer.errors import CodeNotAllowed, ExplorerError
from explorer.pipeline.spec_checks import CHECKS, OF_THE_MACHINE, Check
from explorer.specs import RunSpec
from explorer.store import disk

log = logging.getLogger("explorer")

Level = Literal["quick", "full"]
Place = Literal["here", "queue", "cluster"]


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or worth knowing, about an order."""

    severity: Literal["error", "warning"]
    """An error refuses the order; a warning does not."""
    field: str
    """The key of the spec that it is about, such as `distill.corpus`."""
    message: str
    """What was expected, what came and what to do."""
    error: ExplorerError | None = dataclasses.field(default=None, compare=False, repr=False)
    """The exception of an error."""
    failed: bool = dataclasses.field(default=False, compare=False, repr=False)
    """Whether the check was not passed, even if this is only a warning."""

    def as_dict(self) -> dict[str, str]:
        """Its severity, field and message, for JSON; and the source whose code nobody allowed."""
        facts = {"severity": self.severity, "field": self.field, "message": self.message}
        code = self.error if isinstance(self.error, CodeNotAllowed) else None
        return facts | ({"source": code.source} if code else {})

    def in_words(self) -> str:
        """One line: `error (distill.corpus): There is no corpus file ...`."""
        return f"{self.severity} ({self.field}): {self.message}"


def findings(
    specs: Iterable[RunSpec], root: Path, level: Level = "full", place: Place = "here"
) -> list[Finding]:
    """What is wrong with an order, errors first; empty if nothing is.

    Runs that are finished, and are not to be measured again, are left out. The run of a student's
    teacher is looked at too, unless it is finished.

    Args:
        specs: The runs of the order.
        root: The store.
        level: quick leaves out what reads whole files or uses the network.
        place: Where the runs will be: in this process; in the queue, which has an environment of
            its own; or on other machines. What may be otherwise there is a warning.
    """
    seen: dict[tuple[Hashable, ...], list[Finding]] = {}
    for spec in _to_run(specs, root):
        failed: set[str] = set()
        for check in CHECKS:
            if (check.full and level == "quick") or failed & set(check.after):
                continue
            key = (check.name, *(getattr(spec, name) for name in check.reads))
            if key not in seen:
                seen[key] = _outcome(check, spec, root, place)
            if seen[key] and seen[key][-1].failed:
                failed.add(check.name)
    # One cause may be found by two checks, or in two runs.
    found = {finding.message: finding for outcome in reversed(seen.values()) for finding in outcome}
    return sorted(reversed(found.values()), key=lambda finding: finding.error is None)


def refuse(
    specs: Iterable[RunSpec], root: Path, level: Level = "full", place: Place = "here"
) -> list[Finding]:
    """Refuse an order that cannot work; returns the warnings about one that can.

    Raises:
        ExplorerError: What is wrong; the error of the only problem, or one that lists them all.
    """
    found = findings(specs, root, level, place)
    raise_errors(found)
    return found


def raise_errors(found: Iterable[Finding]) -> None:
    """Raise the errors among these findings, if there are any, as one.

    Raises:
        ExplorerError: The error itself if it is the only one, else all their messages.
    """
    errors = [finding.error for finding in found if finding.error]
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise type(errors[0])(" ".join(str(error) for error in errors)) from errors[0]


def _to_run(specs: Iterable[RunSpec], root: Path) -> list[RunSpec]:
    """The runs that are not finished, each after the run of its teacher."""
    runs: dict[str, RunSpec] = {}
    for spec in specs:
        if disk.is_finished(root, spec.run_id) and not disk.remeasure_requested(root, spec.run_id):
            continue
        teacher = spec.teacher_run()
        if teacher is not None and not disk.is_finished(root, teacher.run_id):
            runs.setdefault(teacher.run_id, teacher)
        runs.setdefault(spec.run_id, spec)
    return list(runs.values())


def _outcome(check: Check, spec: RunSpec, root: Path, place: Place) -> list[Finding]:
    """What one check finds in one run: its warnings, or its error."""
    try:
        warnings = list(check.look(spec, root) or ())
    except ExplorerError as error:
        if check.name in OF_THE_MACHINE[place]:
            return [Finding("warning", check.field, f"On this machine: {error}", failed=True)]
        return [Finding("error", check.field, str(error), error, failed=True)]
    return [Finding("warning", check.field, warning) for warning in warnings]
