"""The preflight in a process of its own: answers each JSON line with another.

The dashboard loads no model library, so it asks here. The process for the quick checks stays while
the dashboard runs, as loading the libraries takes longer than the checks.

    echo '{"runs": [{"teacher": "starter"}], "root": "results", "level": "quick",
        "place": "queue"}' |
        python -m explorer.pipeline.preflight_server
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from explorer.errors import ExplorerError
from explorer.pipeline import preflight, spec_checks
from explorer.processes import child_process
from explorer.specs import RunSpec


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """What is wrong with the requested runs, and the memory that the largest of them takes.

    Args:
        request: The specs of `runs`, the store's `root`, the `level` of the checks, and
            the `place` of the runs.

    Returns:
        `findings`, as `Finding.as_dict`, and `memory_bytes`, which is None where it is unknown.
    """
    root = Path(request["root"])
    specs = [RunSpec.parse(data) for data in request["runs"]]
    found = preflight.findings(specs, root, request["level"], request["place"])
    return {
        "findings": [finding.as_dict() for finding in found],
        "memory_bytes": max(
            filter(None, (_memory_bytes(spec, root) for spec in specs)), default=None
        ),
    }


def _memory_bytes(spec: RunSpec, root: Path) -> float | None:
    try:
        return spec_checks.memory_bytes(spec, root)
    except ExplorerError:
        return None


def main() -> None:
    """Answer until the input ends."""
    child_process.end_with_parent()
    # What a library prints must not stand between the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        os.environ["EXPLORER_RESULTS"] = request["root"]
        print(json.dumps(answer(request)), file=answers, flush=True)


if __name__ == "__main__":
    main()
