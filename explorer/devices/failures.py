"""What an accelerator's error means: it was lost, or another program has it to itself.

Drivers put it into the text of a RuntimeError alone. Every other error of a device, such as a wrong
index in a kernel, is a bug and stays as it is.

Source: docs.nvidia.com/cuda/cuda-runtime-api, "Error handling"; docs.nvidia.com/deploy/xid-errors.
"""

from explorer.errors import ExplorerError, NoRoom, RunFailed

LOST = (
    "unspecified launch failure",
    "the launch timed out",
    "uncorrectable ecc",
    "gpu is lost",
    "device is lost",
    "device lost",
    "device_lost",
    "fallen off the bus",
    "hardware stack error",
    "error: unknown error",
    "xid ",
    "xid:",
)
"""In small letters, what NVIDIA's, AMD's and Intel's runtimes say of a device that stopped."""
TAKEN = ("busy or unavailable", "device is busy")
"""What they say of a device in exclusive use."""


def was_lost(error: BaseException) -> bool:
    """Whether the device stopped answering, so that nothing on it can be read any more."""
    return _says(error, LOST)


def in_words(error: BaseException) -> ExplorerError | None:
    """The error as a sentence that says what to do; None for any other."""
    reason = (str(error).strip().splitlines() or [""])[0].rstrip(".")
    if was_lost(error):
        return RunFailed(
            f"The device was lost in the middle of the work ({reason}). The last checkpoint and "
            "all finished stages are kept. Resume the run once the device answers again (`explorer "
            "doctor` shows it). To go on without it, write device: auto, another device or cpu: "
            "the training continues from the same checkpoint."
        )
    if _says(error, TAKEN):
        return NoRoom(
            f"Another program has this device to itself ({reason}). Wait until it ends, or choose "
            "another device, then resume the run."
        )
    return None


def _says(error: BaseException, words: tuple[str, ...]) -> bool:
    said = str(error).lower()
    return isinstance(error, RuntimeError) and any(each in said for each in words)
