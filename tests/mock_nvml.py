"""A driver's library for tests: `mock_nvml.c`, compiled, and read by nvidia-ml-py as the real one.

So a test covers the layouts of the library's structures, its error codes and its missing functions.
"""

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_suffix(".c")


class MockDriver:
    """The compiled library; a number that is set becomes the answer, a negative one an error."""

    def __init__(self, path: Path) -> None:
        self.library = ctypes.CDLL(str(path))

    def set(self, **numbers: int) -> None:
        """Set what the driver answers from now on, by the names in mock_nvml.c."""
        for name, number in numbers.items():
            ctypes.c_int64.in_dll(self.library, f"mock_{name}").value = number

    def set_uuid(self, uuid: str) -> None:
        """Set the UUID of its GPU or slice, as the driver writes it."""
        (ctypes.c_char * 96).in_dll(self.library, "mock_uuid").value = uuid.encode()

    def set_pids(self, *pids: int) -> None:
        """Set the processes on its GPU."""
        (ctypes.c_uint * 8).in_dll(self.library, "mock_pids")[: len(pids)] = pids
        ctypes.c_uint.in_dll(self.library, "mock_num_pids").value = len(pids)


def build(folder: Path, *, old_driver: bool = False) -> MockDriver:
    """Compile the library, or skip the test where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler, and this machine has none")
    path = folder / f"libnvidia-ml-{'old' if old_driver else 'new'}.so.1"
    flags = ["-DOLD_DRIVER"] if old_driver else []
    subprocess.run([compiler, "-shared", "-fPIC", *flags, "-o", str(path), str(SOURCE)], check=True)
    return MockDriver(path)
