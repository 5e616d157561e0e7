"""Ray's job client, bounded in time and kept off proxies."""

import time
from pathlib import Path
from typing import Any

from ray.job_submission import JobDetails, JobSubmissionClient

LOOK_TIMEOUT_S = 10.0
SUBMIT_TIMEOUT_S = 60.0


class Client(JobSubmissionClient):
    """`JobSubmissionClient` that gives up on a server that hangs; Ray's own waits for ever."""

    def __init__(self, address: str, token: str | None) -> None:
        """Connect to a job server.

        Args:
            address: As Ray takes it: `http://host:8265`, `host:6379`, `ray://`, `auto`.
            token: Of our own head, which lies on loopback; None leaves the authentication
                to Ray's own variables.
        """
        # An environment's HTTP proxy would get our token and could not reach loopback.
        self._proxies = {"http": "", "https": ""} if token else None
        super().__init__(address, headers={"Authorization": f"Bearer {token}"} if token else None)

    def _do_request(self, method: str, endpoint: str, **how: Any) -> Any:
        timeout_s = LOOK_TIMEOUT_S if method == "GET" else SUBMIT_TIMEOUT_S
        return super()._do_request(
            method, endpoint, timeout=timeout_s, proxies=self._proxies, **how
        )

    def submit_when_ready(self, **job: Any) -> None:
        """Submit a job, also to a head so young that it has not found its own node yet."""
        deadline = time.monotonic() + SUBMIT_TIMEOUT_S
        while True:
            try:
                self.submit_job(**job)
                return
            except RuntimeError as error:
                # Ray said no before it took the job, so asking again makes no second one. It
                # waits ten seconds for an agent itself, so this loop is no busy one.
                if "No available agent" not in str(error) or time.monotonic() > deadline:
                    raise

    def nodes(self) -> list[dict[str, float]]:
        """The resources of every living node: `CPU`, `GPU` and others."""
        response = self._do_request("GET", "/api/v0/nodes")
        response.raise_for_status()
        found = response.json()["data"]["result"]["result"]
        return [node["resources_total"] for node in found if node["state"] == "ALIVE"]

    def jobs_of(self, root: Path) -> dict[str, JobDetails]:
        """The latest job of every run of a store."""
        found: dict[str, JobDetails] = {}
        for job in sorted(self.list_jobs(), key=lambda job: job.start_time or 0):
            ours = job.metadata or {}
            if ours.get("results") == str(root):
                found[ours["run_id"]] = job
        return found
