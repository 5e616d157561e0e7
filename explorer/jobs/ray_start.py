"""`ray start` without the dashboard servers that no job needs.

    python -P explorer/jobs/ray_start.py --head ...

Ray starts nine dashboard servers and one for remote clients. Meanwhile the agents of a new node
have 15 seconds to register, a limit that cannot be changed. While a run uses all cores they can
miss it, and then the head dies. Jobs need three of those servers; leaving the others out also
halves the head's memory. Ray has no public option for this (ray-project/ray issue #60096).
"""

from typing import Any

from ray._private import ray_constants, services
from ray.scripts import scripts

NEEDED = ("JobHead", "NodeHead", "StateHead")
"""The job API, the one that finds its node, and the one that reports a node's resources."""

start_process = services.start_ray_process


def start_needed_servers(command: list[str], process_type: str, *args: Any, **options: Any) -> Any:
    """Call Ray's function with one more option for the dashboard."""
    if process_type == ray_constants.PROCESS_TYPE_DASHBOARD:
        command = [*command, f"--modules-to-load={','.join(NEEDED)}"]
    return start_process(command, process_type, *args, **options)


if __name__ == "__main__":
    services.start_ray_process = start_needed_servers
    # `ray start` leaves out the server for remote clients if its dependencies are missing.
    missing = ImportError("no job needs it")
    setattr(scripts, "get_ray_client_dependency_error", lambda: missing)  # noqa: B010 - untyped
    scripts.start()
