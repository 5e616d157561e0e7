"""The cached targets on disk, for `explorer targets`: list, check and remove them."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from explorer.distill.packed_topk import PackedTopK
from explorer.distill.teacher_cache_index import iterate_index, read_json, sum_of_shard
from explorer.errors import BadInput, DamagedStore, JobError
from explorer.files import durable_files
from explorer.store import disk


def list_caches(root: Path) -> list[dict[str, Any]]:
    """One row per folder of targets, largest first: key, teacher, corpus, size."""
    rows = []
    for folder in sorted(root.iterdir()) if root.is_dir() else []:
        if folder.is_dir():
            size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
            rows.append({"key": folder.name, "num_bytes": size, **_contents(folder)})
    return sorted(rows, key=lambda row: -row["num_bytes"])


def _contents(folder: Path) -> dict[str, Any]:
    try:
        meta = read_json(folder / "meta.json")
        shards = [shard for shard, _ in iterate_index(folder) if shard is not None]
    except DamagedStore:
        return {"problem": "written by an older version, or damaged: no run reads it"}
    identity = meta["identity"]
    row = PackedTopK(min(identity["top_k"], identity["vocab_size"]), identity["vocab_size"])
    lost = [value for shard in shards for value in shard["truncation_kl"] if value is not None]
    unknown = [shard["num_unknown"] for shard in shards if "num_unknown" in shard]
    mass = [value for shard in shards for value in shard["mass"]]
    return {
        "teacher": meta["about"].get("teacher", identity.get("teacher")),
        "corpus": meta["about"].get("corpus", identity.get("corpus")),
        "top_k": row.top_k,
        "temperature": identity["temperature"],
        "id_bits": row.id_bits,
        "bytes_per_token": row.num_bytes,
        "num_blocks": len(mass),
        "num_blocks_of_corpus": identity["num_blocks"],
        "num_shards": len(shards),
        "mean_mass": float(np.mean(mass)) if mass else None,
        "truncation_kl": float(np.mean(lost)) if lost else None,
        "num_unknown": sum(unknown) if unknown else None,
        "seconds": sum(shard["seconds"] for shard in shards),
        "damaged": [s["name"] for s in shards if not (folder / s["name"]).exists()],
    }


def resolve_key(root: Path, text: str) -> str:
    """The only key that starts with `text`.

    Raises:
        BadInput: No key starts so, or several do; the message names candidates.
    """
    return disk.resolve_id(
        text,
        [row["key"] for row in list_caches(root)],
        "folders of targets",
        f"There are no targets {text!r} in {root}.",
        "`explorer targets ls` lists them.",
    )


def damaged_shards(root: Path, key: str) -> list[str]:
    """One sentence for each damaged shard of a folder."""
    folder = folder_of(root, key)
    sentences = []
    for shard, _ in iterate_index(folder):
        if shard is None:
            sentences.append("A line of the index is damaged; the next run computes its blocks.")
        elif why := durable_files.damage(folder / shard["name"], sum_of_shard(shard)):
            sentences.append(f"{shard['name']} {why}.")
    return sentences


def folder_of(root: Path, key: str) -> Path:
    """The folder of a key.

    Raises:
        BadInput: No such folder.
    """
    if not re.fullmatch(r"[0-9a-f]{16}", key) or not (root / key).is_dir():
        raise BadInput(f"There are no targets {key!r} in {root}. `explorer targets ls` lists them.")
    return root / key


def remove_cache(root: Path, key: str) -> None:
    """Remove a folder of targets; a run that needs them computes them again.

    Raises:
        BadInput: No such folder.
        JobError: Another process is writing to it.
    """
    folder = folder_of(root, key)
    try:
        with FileLock(root / f"{key}.lock", timeout=0):
            # First, so that a killed removal leaves a folder that counts as empty.
            (folder / "meta.json").unlink(missing_ok=True)
            shutil.rmtree(folder)
    except Timeout as error:
        raise JobError(f"A run is writing the targets {key}. Wait for it, or cancel it.") from error
