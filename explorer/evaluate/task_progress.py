"""The progress of an evaluation over all its tasks."""

from explorer.evaluate.backends.request_progress import RequestProgress
from explorer.store.progress import Progress


class TaskProgress:
    """Counts the answered requests of all tasks for the run's progress."""

    def __init__(self, progress: Progress, num_requests: dict[str, int]) -> None:
        """Start with the estimated number of requests of each task, in order."""
        self._progress, self._num_requests = progress, num_requests
        self._done, self._task = 0, ""
        self._call: RequestProgress | None = None

    def start(self, task: str) -> None:
        """Begin a task."""
        self._task, self._call = task, None
        self._report()

    def on_requests(self, call: RequestProgress) -> None:
        """Replace the task's estimated number of requests by the backend's count."""
        self._call = call
        self._num_requests[self._task] = max(self._num_requests[self._task], call.total_requests)

    def on_answer(self) -> None:
        """Count one answered request."""
        self._done += 1
        self._report()

    def finish(self, task: str) -> None:
        """Count all of a task as done, also if an earlier process finished it."""
        names = list(self._num_requests)
        self._task, self._call = task, None
        self._done = sum(self._num_requests[name] for name in names[: names.index(task) + 1])
        self._report()

    def _report(self) -> None:
        total = sum(self._num_requests.values())
        left = self._seconds_left()
        numbers = {} if left is None else {"seconds_left": round(left, 1)}
        self._progress("capability", self._done, total, "requests", task=self._task, **numbers)

    def _seconds_left(self) -> float | None:
        """This task's by its tokens; later tasks' by its time per request."""
        call = self._call
        if call is None or call.seconds_per_token is None or call.seconds_left is None:
            return None
        names = list(self._num_requests)
        later = sum(self._num_requests[name] for name in names[names.index(self._task) + 1 :])
        seconds_per_request = call.seconds_per_token * call.total_tokens / call.total_requests
        return call.seconds_left + later * seconds_per_request
