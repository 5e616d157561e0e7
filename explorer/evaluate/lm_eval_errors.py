"""lm-eval's own exceptions, which name neither the task nor the document."""

import contextlib
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from explorer.errors import ExplorerError, RunFailed
from explorer.evaluate.task_plan import TaskPlan


@contextlib.contextmanager
def named(plan: TaskPlan) -> Iterator[None]:
    """Name the task and the document where lm-eval's code fails.

    Raises:
        RunFailed: In place of an exception from lm-eval's tasks, filters and metrics. One from a
            model passes: it is ours, or memory ran out.
    """
    try:
        yield
    except ExplorerError:
        raise
    except Exception as error:
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        ours = [frame for frame in frames if _package(frame) in ("lm_eval", "explorer")]
        in_task_code = _package(ours[-1]) == "lm_eval" and "/models/" not in _file(ours[-1])
        if not in_task_code:
            raise
        where = ""
        if {"build_all_requests", "process_results"} & {frame.f_code.co_name for frame in frames}:
            # lm-eval counts the documents of the sample, in the order of the data.
            counts = [frame.f_locals["doc_id"] for frame in frames if "doc_id" in frame.f_locals]
            where = f", document {sorted(plan.doc_ids)[counts[-1]]}" if counts else ""
        reason = " ".join(str(error).split()).rstrip(".")
        raise RunFailed(
            f"lm-eval can't evaluate the task {plan.name}{where}: {type(error).__name__} in "
            f"{ours[-1].f_code.co_name}{': ' if reason else ''}{reason}. Correct the task's "
            "documents or its file, or remove it from the list."
        ) from error


def _file(frame: FrameType) -> str:
    return Path(frame.f_code.co_filename).as_posix()


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]
