"""What people see when something is wrong: one sentence and what to do.

An `ExplorerError` reaches the page as one red line and the shell as one line
with the exit code of its class; anything else is a bug and keeps its traceback.
"""

import errno


def reason_of(error: OSError) -> str:
    """Why the system refused, in words; what may not be read or written is called so."""
    if error.errno in (errno.EACCES, errno.EPERM):
        return "no permission"
    return error.strerror or str(error)


class ExplorerError(Exception):
    """What was expected, what came, what to do."""

    exit_code = 1


class BadInput(ExplorerError):
    """The request itself is wrong: a spec, a price, a path, a name."""

    exit_code = 2


class UnknownModel(BadInput):
    """No model answers to that name on this machine."""


class UnknownTask(BadInput):
    """lm-eval knows no task of that name, and no local folder holds it."""


class CodeNotAllowed(BadInput):
    """A task or a model brings Python code that nobody allowed to run here."""

    def __init__(self, message: str, source: str) -> None:
        """What would run, and what to hand to `explorer trust`."""
        super().__init__(message)
        self.source = source


class BadCorpus(BadInput):
    """The distillation text cannot be read or is too short."""


class NoRoom(ExplorerError):
    """The disk, the memory or the permission for the work is missing."""


class RunFailed(ExplorerError):
    """A stage could not finish; its record, log and checkpoint are kept."""


class RunCancelled(ExplorerError):
    """Somebody asked the run to stop, and it did."""


class JobError(ExplorerError):
    """The queue refused, lost or cannot reach a job."""


class DamagedStore(ExplorerError):
    """A file in the store is not what its name says."""


class CannotRead(DamagedStore):
    """A file may be whole, but not for us: permission is missing, or a newer version wrote it."""
