"""Means over resampled documents, and the covariance of means without resampling.

Documents that share a passage (five questions on one text) are not independent evidence. They
form a cluster, and whole clusters are resampled, or summed, instead of documents.
"""

import threading
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

# Shape letters: D draws, N documents of a task, R rows of values, G clusters.

Values = npt.NDArray[np.float64]

LEVEL = 0.95
ALPHA = 0.05
"""Error rate of every test: 1 - LEVEL, which is not the same float."""
BLOCK_CELLS = 4_000_000
"""Numbers of a resampling to hold in memory at once."""
CACHED_CELLS = 8_000_000
"""Numbers of recent resamplings that stay in memory, 8 bytes each."""

_CACHE: dict[tuple[str, int, int, int, int], Values] = {}
_CACHE_LOCK = threading.Lock()


def bootstrap_means(
    values_RN: Values,
    task: str,
    draws: int,
    seed: int,
    clusters_N: npt.NDArray[Any] | None = None,
) -> Values:
    """Mean of each row over documents, or clusters, drawn with replacement; shape [D, R].

    Args:
        values_RN: One row per model (or chance level), one column per document.
        task: Its name is part of the seed, so that tasks are drawn independently.
        draws: Number of draws.
        seed: Same seed, task and number of documents: same draws.
        clusters_N: The passage of each document; None if documents are independent.
    """
    count = values_RN.shape[1]
    if clusters_N is None:
        sums_RG, sizes_G = values_RN, np.ones(count)
    else:
        sums_RG, sizes_G = cluster_sums(values_RN, clusters_N)
    parts = [
        times_DG @ sums_RG.T / (times_DG @ sizes_G)[:, None]
        for times_DG in _resamplings(task, draws, seed, count, len(sizes_G))
    ]
    return np.concatenate(parts)


def _resamplings(
    task: str, draws: int, seed: int, num_documents: int, num_clusters: int
) -> Iterable[Values]:
    """How often each draw holds each document or cluster, [D, G]; in blocks if that is large.

    Comparing a hundred runs resamples the same documents a hundred times, so recent small
    resamplings are cached.
    """
    if draws * num_clusters > BLOCK_CELLS:
        return _drawn_blocks(task, draws, seed, num_documents, num_clusters)
    key = task, draws, seed, num_documents, num_clusters
    with _CACHE_LOCK:
        times_DG = _CACHE.pop(key, None)
    if times_DG is None:
        (times_DG,) = _drawn_blocks(*key)
    with _CACHE_LOCK:
        _CACHE[key] = times_DG  # the most recent comes last
        while sum(resampling.size for resampling in _CACHE.values()) > CACHED_CELLS:
            del _CACHE[next(iter(_CACHE))]
    return [times_DG]


def _drawn_blocks(
    task: str, draws: int, seed: int, num_documents: int, num_clusters: int
) -> Iterator[Values]:
    generator = np.random.default_rng([seed, zlib.crc32(task.encode()), num_documents])
    block = max(1, BLOCK_CELLS // num_clusters)
    for start in range(0, draws, block):
        size = min(block, draws - start)
        picks = generator.integers(0, num_clusters, (size, num_clusters), dtype=np.int32)
        offsets = np.arange(size, dtype=np.int64)[:, None] * num_clusters
        times = np.bincount((picks + offsets).ravel(), minlength=size * num_clusters)
        yield times.reshape(size, num_clusters).astype(np.float64)


def percentile_interval(values_D: Values) -> tuple[float, float]:
    """The middle 95 % of the draws."""
    low, high = np.quantile(values_D, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def covariance(values_RN: Values, clusters_N: npt.NDArray[Any] | None = None) -> Values:
    """Covariance of the rows' means, with documents of a cluster correlated; shape [R, R].

    Without clusters it is the sample covariance divided by N. With G clusters, residuals are
    summed within each cluster first, and the factor G / (G - 1) corrects for few clusters.

    Returns:
        Infinite if there are fewer than two clusters, because one text does not show a spread.

    Source: Miller 2024, arXiv:2411.00640, section 2.2; Liang and Zeger 1986.
    """
    num_rows, count = values_RN.shape
    residuals_RN = values_RN - values_RN.mean(axis=1, keepdims=True)
    sums_RG = residuals_RN if clusters_N is None else cluster_sums(residuals_RN, clusters_N)[0]
    num_clusters = sums_RG.shape[1]
    if num_clusters < 2:
        return np.full((num_rows, num_rows), np.inf)
    covariance_RR: Values = sums_RG @ sums_RG.T / count**2 * (num_clusters / (num_clusters - 1))
    return covariance_RR


def cluster_sums(values_RN: Values, clusters_N: npt.NDArray[Any]) -> tuple[Values, Values]:
    """Sum of each row in each cluster, [R, G], and the clusters' sizes, [G]."""
    _, places_N, sizes_G = np.unique(clusters_N, return_inverse=True, return_counts=True)
    sums_RG: Values = np.stack(
        [np.bincount(places_N, weights=row_N).astype(np.float64) for row_N in values_RN]
    )
    return sums_RG, sizes_G.astype(np.float64)
