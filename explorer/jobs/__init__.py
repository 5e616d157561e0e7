"""The queue: submit, watch, cancel and resume runs, on a laptop or on a Ray cluster.

    client.py     Ray's job client, bounded in time
    head.py       which Ray the jobs go to; starts and stops our own
    detached.py   starts the head so that it inherits nothing of the page
    ray_start.py  `ray start` without what no job needs
    queue.py      submit, cancel, resume
    submission.py the same in the background of a page, with how far it is
    states.py     what became of every run: files first, Ray where files cannot know

A job is one command, `python -m explorer run --queued RUN_ID` or one that submits runs and
waits for them, so nothing here knows what a run
does, and a run in the foreground needs nothing of this. Importing this package does not
import Ray.
"""

from explorer.jobs.queue import cancel, delete, request_stop, resume, submit, submit_command
from explorer.jobs.ray_head import engine_process_on, engine_status, stop_engine
from explorer.jobs.states import log_tail, state_of, status_row, status_table, wait_until_done

__all__ = [
    "cancel",
    "delete",
    "engine_status",
    "engine_process_on",
    "status_table",
    "log_tail",
    "resume",
    "status_row",
    "state_of",
    "request_stop",
    "stop_engine",
    "submit",
    "submit_command",
    "wait_until_done",
]
