"""Ray's job client with timeouts, and without proxies for our own head."""

import time
from pathlib import Path
from typing import Any

from ray.job_submission import JobDetails, JobSubmissionClient

LOOK_TIMEOUT_S = 10.0
SUBMIT_TIMEOUT_S = 60.0


class Client(JobSubmissionClient):
    """`JobSubmissionClient` with timeouts; Ray's own waits for ever for a server that hangs."""

    def __init__(self, address: str, token: str | None) -> None:
        """Connect to a job server.

        Args:
            address: In any form Ray takes: `http://host:8265`, `host:6379`, `ray://`, `auto`.
            token: The token of our own head, which is on loopback; None leaves authentication
                to Ray's environment variables.
        """
        # An HTTP proxy would see our token and could not reach loopback.
        self._proxies = {"http": "", "https": ""} if token else None
        super().__init__(address, headers={"Authorization": f"Bearer {token}"} if token else None)

    def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
        timeout_s = LOOK_TIMEOUT_S if method == "GET" else SUBMIT_TIMEOUT_S
        return super()._do_request(
            method, endpoint, timeout=timeout_s, proxies=self._proxies, **options
        )

    def submit_when_ready(self, **job: Any) -> None:
        """Submit a job; waits for a new head that has not found its own node yet."""
        deadline = time.monotonic() + SUBMIT_TIMEOUT_S
        while True:
            try:
                self.submit_job(**job)
                return
            except RuntimeError as error:
                # Ray refused before it accepted the job, so a retry makes no second one. Ray
                # itself waits ten seconds for an agent, so this loop does not spin.
                if "No available agent" not in str(error) or time.monotonic() > deadline:
                    raise

    def all_nodes(self) -> dict[str, dict[str, Any]]:
        """Every node that Ray knows, lost ones too, by its id.

        Keys of each: `state` (`ALIVE` or `DEAD`), `node_ip`, `resources_total` and others.
        """
        response = self._do_request("GET", "/api/v0/nodes")
        response.raise_for_status()
        nodes = response.json()["data"]["result"]["result"]
        return {node["node_id"]: node for node in nodes}

    def nodes(self) -> list[dict[str, float]]:
        """The resources of every live node: `CPU`, `GPU` and others."""
        nodes = self.all_nodes().values()
        return [node["resources_total"] for node in nodes if node["state"] == "ALIVE"]

    def jobs_of(self, root: Path) -> dict[str, JobDetails]:
        """The latest job of every run of a store, by run id."""
        latest: dict[str, JobDetails] = {}
        for job in sorted(self.list_jobs(), key=lambda job: job.start_time or 0):
            metadata = job.metadata or {}
            if metadata.get("results") == str(root):
                latest[metadata["run_id"]] = job
        return latest

    def active_jobs(self) -> set[str]:
        """Submission ids of all jobs that have not ended."""
        active = ("PENDING", "RUNNING")
        return {str(job.submission_id) for job in self.list_jobs() if job.status.value in active}
