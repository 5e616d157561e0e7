"""Answers packed for the index: a bit a document where a model was right or wrong.

Thousands of runs answer the same documents. So the documents of a task (ids, hashes, chance
levels, passages) are kept once, under a digest of theirs, and a run keeps its values alone: 1,356
right-or-wrong answers take 170 bytes, where the store's parquet file takes 106 KB.
"""

import hashlib
import json
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from explorer.analysis.stats.bootstrap import Values
from explorer.analysis.stats.pairing import TaskAnswers

# Shape letters: N documents of a task.

BITS, FLOATS = b"b", b"f"


def pack_documents(answers: TaskAnswers) -> tuple[str, bytes]:
    """The documents of a task, and the digest under which they are kept."""
    content = {
        "ids": answers.ids_N.tolist(),
        "hashes": answers.hashes_N.tolist(),
        "chance": None if answers.chance_N is None else answers.chance_N.tolist(),
        "clusters": None if answers.clusters_N is None else answers.clusters_N.tolist(),
    }
    text = json.dumps(content).encode()
    return hashlib.sha256(text).hexdigest()[:32], zlib.compress(text)


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
