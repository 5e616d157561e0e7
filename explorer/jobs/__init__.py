"""The queue: submit, watch, cancel and resume runs, on a laptop or on a Ray cluster.

A job is one command: `python -m explorer run --queued RUN_ID`, or one that submits runs and waits
for them. So nothing here knows what a run does, and a run in the foreground needs none of it.
Importing this package does not import Ray.

queue.py          submit, cancel, resume and delete runs
submission.py     the same in the background of a page, with its progress
states.py         the state of every run: from its files, and from Ray where files cannot know
clean.py          removes what no run needs any more
submit_lock.py    one submission at a time per host
cluster_queue.py  the runs that wait for room on a cluster
dispatch.py       submits them when there is room; queues the runs of a lost machine again
ray_head.py       the Ray that runs the jobs: a named cluster, or a head of our own
ray_client.py     Ray's job client with timeouts
ray_start.py      `ray start` without the dashboard servers that no job needs
detached.py       starts the head so that it inherits nothing from the page
"""

from explorer.jobs.queue import (
    cancel,
    cancel_all,
    delete,
    request_stop,
    resume,
    submit,
    submit_command,
)
from explorer.jobs.ray_head import engine_process_on, engine_status, place, stop_engine
from explorer.jobs.states import log_tail, state_of, status_row, status_table, wait_until_done

__all__ = [
    "cancel",
    "cancel_all",
    "delete",
    "engine_process_on",
    "engine_status",
    "log_tail",
    "place",
    "request_stop",
    "resume",
    "state_of",
    "status_row",
    "status_table",
    "stop_engine",
    "submit",
    "submit_command",
    "wait_until_done",
]
