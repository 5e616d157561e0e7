"""Answers packed for the index: a bit a document where a model was right or wrong.

Thousands of runs answer the same documents. So the documents of a task (ids, hashes, chance
levels, passages) are kept once, under a digest of theirs, and a run keeps its values alone: 1,356
right-or-wrong answers take 170 bytes, where the store's parquet file takes 106 KB.
"""

import hashlib
import itertools
import json
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pyarrow import parquet

from explorer.analysis.stats import pairing
from explorer.analysis.stats.bootstrap import Values
from explorer.analysis.stats.pairing import TaskAnswers
from explorer.files import durable_files

# Shape letters: N documents of a task.

BITS, FLOATS = b"b", b"f"


def read_answers(
    path: Path, headline: Collection[tuple[str, str]]
) -> dict[tuple[str, str], TaskAnswers]:
    """A run's answers by task and metric, of its headline metrics alone.

    It does what `disk.load_answers` and `pairing.scored_model` do together, without a frame a
    run: some 3 ms where they take 20. A missing file holds no answers.

    Raises:
        DamagedStore: The file is not what `disk.write_answers` writes.
    """
    durable_files.check_regular(path)
    if not path.exists():
        return {}
    try:
        return _answers_in(path, headline)
    except Exception as error:  # whatever pyarrow and NumPy make of a foreign file
        raise durable_files.damaged(path, f"cannot be read: {error}") from error


def _answers_in(
    path: Path, headline: Collection[tuple[str, str]]
) -> dict[tuple[str, str], TaskAnswers]:
    table = parquet.ParquetFile(
        path, read_dictionary=["task", "metric"], page_checksum_verification=True
    ).read(use_threads=False)
    columns = {
        name: table[name].to_numpy()
        for name in ("doc_id", "doc_hash", "value", "chance", "cluster")
        if name in table.column_names
    }
    groups_N, names = _groups(table)
    answers = {}
    for place, name in enumerate(names):
        if name in headline and (chosen_N := groups_N == place).any():
            own = {column: values_N[chosen_N] for column, values_N in columns.items()}
            answers[name] = pairing.task_answers(
                *(own[column] for column in ("doc_id", "doc_hash", "value")),
                *(own.get(column) for column in ("chance", "cluster")),
            )
    return answers


def _groups(table: Any) -> tuple[npt.NDArray[Any], list[tuple[str, str]]]:
    """For each row the place of its task and metric in a list of them."""
    tasks, metrics = (table[name].combine_chunks() for name in ("task", "metric"))
    num_metrics = len(metrics.dictionary)
    groups_N = tasks.indices.to_numpy() * num_metrics + metrics.indices.to_numpy()
    return groups_N, list(
        itertools.product(tasks.dictionary.to_pylist(), metrics.dictionary.to_pylist())
    )


def documents_key(answers: TaskAnswers) -> str:
    """A digest of a task's documents."""
    digest = hashlib.sha256()
    parts = (answers.ids_N, answers.hashes_N, answers.chance_N, answers.clusters_N)
    for part_N in parts:
        digest.update(b"-" if part_N is None else "\n".join(map(str, part_N.tolist())).encode())
        digest.update(b"\0")
    return digest.hexdigest()[:32]


def pack_documents(answers: TaskAnswers) -> bytes:
    """The documents of a task."""
    content = {
        "ids": answers.ids_N.tolist(),
        "hashes": answers.hashes_N.tolist(),
        "chance": None if answers.chance_N is None else answers.chance_N.tolist(),
        "clusters": None if answers.clusters_N is None else answers.clusters_N.tolist(),
    }
    return zlib.compress(json.dumps(content).encode())


def unpack_documents(packed: bytes) -> dict[str, npt.NDArray[Any] | None]:
    """What `pack_documents` packed, as arrays."""
    content = json.loads(zlib.decompress(packed))
    return {
        "ids": np.array(content["ids"]),
        "hashes": np.array(content["hashes"], dtype=object),
        "chance": None if content["chance"] is None else np.array(content["chance"], dtype=float),
        "clusters": None if content["clusters"] is None else np.array(content["clusters"]),
    }


def pack_values(values_N: Values) -> bytes:
    """A model's values: bits where all are 0 or 1, else float64."""
    if np.isin(values_N, (0.0, 1.0)).all():
        return BITS + np.packbits(values_N.astype(bool)).tobytes()
    return FLOATS + values_N.astype("<f8").tobytes()


def unpack_values(packed: bytes, num_documents: int) -> Values:
    """What `pack_values` packed."""
    kind, content = packed[:1], packed[1:]
    if kind == BITS:
        bits = np.unpackbits(np.frombuffer(content, dtype=np.uint8), count=num_documents)
        return bits.astype(np.float64)
    return np.frombuffer(content, dtype="<f8").astype(np.float64)


def unpack_answers(documents: dict[str, npt.NDArray[Any] | None], packed: bytes) -> TaskAnswers:
    """One model's answers to a task."""
    ids_N, hashes_N = documents["ids"], documents["hashes"]
    assert ids_N is not None, "documents have ids"
    assert hashes_N is not None, "documents have hashes"
    values_N = unpack_values(packed, len(ids_N))
    return TaskAnswers(ids_N, hashes_N, values_N, documents["chance"], documents["clusters"])
