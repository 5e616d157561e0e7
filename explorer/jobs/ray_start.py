"""`ray start` without the parts of Ray's dashboard that no job needs.

    python -P explorer/jobs/ray_start.py --head ...

Ray starts nine servers of its dashboard and one for remote clients, and at the same moment
gives the agents of a new node 15 seconds, a number that cannot be changed. Where a run
uses all cores the agents can lose that race, and the head dies. Jobs need three of those
servers; the others stay away, with half of the head's memory.
"""

from typing import Any

from ray._private import ray_constants, services
from ray.scripts import scripts

NEEDED = ("JobHead", "NodeHead", "StateHead")
"""The job API, what finds the node for it, and what tells a node's resources."""

start_process = services.start_ray_process


def start_what_is_needed(command: list[str], process_type: str, *args: Any, **how: Any) -> Any:
    """Ray's own function, which gets one more option for the dashboard."""
    if process_type == ray_constants.PROCESS_TYPE_DASHBOARD:
        command = [*command, f"--modules-to-load={','.join(NEEDED)}"]
    return start_process(command, process_type, *args, **how)


if __name__ == "__main__":
    services.start_ray_process = start_what_is_needed
    # `ray start` leaves the server of remote clients away when what it needs is missing.
    missing = ImportError("no job needs it")
    setattr(scripts, "get_ray_client_dependency_error", lambda: missing)  # noqa: B010 - untyped
    scripts.start()
