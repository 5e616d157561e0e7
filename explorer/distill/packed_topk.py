"""How a position of the targets is packed on disk: a row of bytes.

First the low 16 bits of the k ids, then a bit plane for each further bit of an id (one below
131,072 tokens, two for Qwen's 151,936), then half-precision log-probabilities of the k tokens and
the tail bucket. So k = 32 takes 130 bytes a position for the starter and 138 for Qwen; 32-bit ids
and no bucket would take 192.
"""

import numpy as np
import numpy.typing as npt

# Shape letters: B blocks, T tokens of a block, K kept tokens, E kept tokens and bucket, R bytes of
# a row.

PackedRows = npt.NDArray[np.uint8]


class PackedTopK:
    """Packs and unpacks rows of `top_k` ids and their log-probabilities."""

    def __init__(self, top_k: int, vocab_size: int) -> None:
        """There is a bucket unless all `vocab_size` tokens are kept."""
        self.top_k = top_k
        self.num_events = top_k + (top_k < vocab_size)
        self.id_bits = max(16, (vocab_size - 1).bit_length())
        self._plane_bytes = -(-top_k // 8)
        self.num_bytes = 2 * top_k + (self.id_bits - 16) * self._plane_bytes + 2 * self.num_events

    def pack(
        self, ids_BTK: npt.NDArray[np.int64], log_p_BTE: npt.NDArray[np.float16]
    ) -> PackedRows:
        """Pack ids and log-probabilities into rows of bytes, shape [B, T, R]."""
        parts = [np.ascontiguousarray(ids_BTK & 0xFFFF).astype("<u2").view(np.uint8)]
        for bit in range(16, self.id_bits):
            parts.append(np.packbits(((ids_BTK >> bit) & 1).astype(np.uint8), axis=-1))
        parts.append(np.ascontiguousarray(log_p_BTE).astype("<f2").view(np.uint8))
        return np.concatenate(parts, axis=-1)

    def unpack(self, rows_BTR: PackedRows) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float16]]:
        """The inverse of `pack`."""
        end = 2 * self.top_k
        ids_BTK = rows_BTR[..., :end].copy().view("<u2").astype(np.int64)
        for bit in range(16, self.id_bits):
            plane = rows_BTR[..., end : end + self._plane_bytes]
            ids_BTK |= np.unpackbits(plane, axis=-1, count=self.top_k).astype(np.int64) << bit
            end += self._plane_bytes
        log_p_BTE: npt.NDArray[np.float16] = rows_BTR[..., end:].copy().view("<f2")
        return ids_BTK, log_p_BTE
