"""The teacher's distributions, computed once and shared by all students.

Every position of a block has the k most likely tokens, their log-probabilities and that of a
bucket for all other tokens. Blocks are computed when a run first needs them, so a small run pays
for a small part and a larger one adds to it. The folder's key is a hash of what decides the
numbers: teacher, tokenizer, corpus, block length, k and temperature.

    results/.work/targets/<key>/  meta.json  index.jsonl  shard-00000.bin ... refused.jsonl

A shard is written whole, then its line is appended to the index, with its checksum. It is read
through a memory map: a corpus may be larger than memory, and a killed pass loses half a minute at
most. `packed_topk` says how a position is stored.

    explorer targets ls
"""

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor
from torch.nn.functional import log_softmax

from explorer.distill import cpu_tuning
from explorer.distill.losses import kept_log_softmax
from explorer.distill.packed_topk import PackedRows, PackedTopK
from explorer.distill.teacher_cache_index import (
    INDEX,
    OLD_INDEX,
    REFUSED,
    CacheFacts,
    index_line,
    iterate_index,
    read_refused,
    sum_of_shard,
)
from explorer.distill.token_file import Blocks
from explorer.errors import DamagedStore, NoRoom
from explorer.files import durable_files
from explorer.models.loading import Loaded
from explorer.records import TargetsFacts

# Shape letters: N blocks, B blocks of a batch, T tokens of a block, K kept tokens, E kept tokens
# and bucket (no bucket where all tokens are kept), V vocabulary, R bytes of a position's row.

FORMAT = 2
BATCH_BLOCKS = 4
SHARD_BYTES = 32 * 2**20
SHARD_EVERY_S = 30.0
"""A slow teacher's shard is written after this time, however small it is."""
TRUNCATION_STRIDE = 8
"""The cost of truncation, which needs the whole vocabulary, is measured at every 8th position."""

log = logging.getLogger("explorer")


@dataclasses.dataclass(frozen=True)
class TopK:
    """A teacher's top-k distributions on some blocks."""

    numbers: list[int]
    ids_BTK: Tensor
    """All different within a position."""
    log_p_BTE: Tensor
    truncation_kl: list[float | None]
    """For each block, as in `top_k_of`; None if the teacher gives only what is kept."""
    num_unknown: int | None = None
    """Tokens that a server named and the tokenizer lacks; None for a teacher with weights."""


TopKPass = Callable[[Blocks, list[int], int, float], Generator[TopK, None, None]]
"""A teacher's pass over the blocks [N, T] with these numbers: top k at a temperature."""


class TeacherCache:
    """A folder of cached targets of one teacher on one corpus."""

    def __init__(
        self,
        root: Path,
        blocks_NT: Blocks,
        identity: dict[str, Any],
        about: dict[str, str] | None = None,
    ) -> None:
        """Open the folder of this identity, or create an empty one.

        Args:
            root: The folder of all targets.
            blocks_NT: Token ids of the whole corpus.
            identity: What decides the numbers; needs `top_k`, `temperature`, `vocab_size`.
            about: Names of the teacher and the corpus, for people.

        Raises:
            DamagedStore: The folder holds other targets.
            NoRoom: The folder may not be written.
        """
        self.identity = {**identity, "num_blocks": len(blocks_NT), "format": FORMAT}
        text = json.dumps(self.identity, sort_keys=True)
        self.key = hashlib.sha256(text.encode()).hexdigest()[:16]
        self.folder = root / self.key
        self.blocks_NT = blocks_NT
        vocab_size = int(identity["vocab_size"])
        self.top_k = min(int(identity["top_k"]), vocab_size)
        self.row = PackedTopK(self.top_k, vocab_size)
        self._about = about or {}
        self._lock = FileLock(root / f"{self.key}.lock")
        try:
            root.mkdir(parents=True, exist_ok=True)
            with self._lock:
                self._open()
        except OSError as error:
            raise NoRoom(f"Could not write to {root}: {error.strerror or error}.") from error

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle only the folder's name; the process that unpickles it opens the folder."""
        return TeacherCache, (self.folder.parent, self.blocks_NT, self.identity, self._about)

    def _open(self) -> None:
        meta = self.folder / "meta.json"
        stored = durable_files.read_or_set_aside(meta, CacheFacts)
        if stored is None:
            self.folder.mkdir(exist_ok=True)
            for name in (INDEX, OLD_INDEX, REFUSED):  # of a removal that was killed
                (self.folder / name).unlink(missing_ok=True)
            durable_files.write_json(
                meta, {"identity": self.identity, "about": self._about}, indent=1
            )
        self._check_identity(self.identity if stored is None else stored.identity)
        self._load()

    def _check_identity(self, stored: dict[str, Any]) -> None:
        """Refuse a folder of other targets.

        Raises:
            DamagedStore: The message says which.
        """
        if stored != self.identity:
            other = [k for k in self.identity if stored.get(k) != self.identity[k]]
            raise DamagedStore(
                f"{self.folder} holds the targets of another {', '.join(other)}. It may have been "
                f"copied by hand. Remove it (explorer targets rm {self.key}); the next run then "
                "repeats the teacher's pass."
            )

    def _load(self) -> None:
        """Read the index: which shard holds which block."""
        num_blocks = len(self.blocks_NT)
        self._shards: list[dict[str, Any]] = []
        # Of each block: its shard, -1 for none, its place in it, and two measurements.
        self._shard_N = np.full(num_blocks, -1, np.int32)
        self._place_N = np.zeros(num_blocks, np.int32)
        self._mass_N, self._lost_N = np.full((2, num_blocks), np.nan)
        self._index_bytes = 0
        self.refused = read_refused(self.folder)
        for shard, num_bytes in iterate_index(self.folder):
            self._index_bytes = num_bytes
            if shard is not None and max(shard["blocks"], default=0) < num_blocks:
                self._add(shard)

    def _add(self, shard: dict[str, Any]) -> None:
        blocks = np.array(shard["blocks"], np.int64)
        self._shard_N[blocks] = len(self._shards)
        self._place_N[blocks] = np.arange(len(blocks))
        self._mass_N[blocks] = shard["mass"]
        self._lost_N[blocks] = np.array(shard["truncation_kl"], float)  # None becomes nan
        by_block = ("blocks", "mass", "truncation_kl")
        about = {name: value for name, value in shard.items() if name not in by_block}
        self._shards.append(about | {"num_blocks": len(blocks)})

    @property
    def done(self) -> list[int]:
        """Numbers of the blocks that have targets."""
        numbers: list[int] = np.flatnonzero(self._shard_N >= 0).tolist()
        return numbers

    def refuse(self, number: int, reason: str) -> None:
        """Remember that the teacher answers no request about this block, so that no run asks again.

        Args:
            number: The block.
            reason: What the server said.
        """
        durable_files.append_object(self.folder / REFUSED, {"block": number, "reason": reason})
        self.refused[number] = reason

    def without_refused(self, numbers: list[int]) -> list[int]:
        """These blocks, in their order, without those that the teacher refused."""
        return [number for number in numbers if number not in self.refused]

    @cpu_tuning.tuned()
    def fill(
        self,
        load_teacher: Callable[[], TopKPass],
        wanted: list[int],
        on_progress: Callable[[int, int, float], None],
    ) -> None:
        """Compute the wanted blocks that are missing; a lock makes other runs wait for them.

        A shard with a wrong checksum counts as missing, and the log says so. What was computed
        before a failure or a stop is kept. Blocks that an endpoint refuses stay missing; `refused`
        has them.

        Args:
            load_teacher: Called only if something is missing.
            wanted: Block numbers.
            on_progress: Called with (tokens done, tokens missing, tokens per second).

        Raises:
            NoRoom: The disk is full. What was written before is kept.
        """
        with self._lock:
            self._load()
            self._drop_damaged(wanted)
            missing = [
                number
                for number in dict.fromkeys(wanted)
                if self._shard_N[number] < 0 and number not in self.refused
            ]
            if not missing:
                return
            score = load_teacher()
            total = len(missing) * self.blocks_NT.shape[1]
            began = shard_began = time.monotonic()
            num_done = 0
            parts: list[_PendingBlocks] = []
            answers = score(self.blocks_NT, missing, self.top_k, self.identity["temperature"])
            try:
                with contextlib.closing(answers):
                    for answer in answers:
                        parts.append(self._pending(answer))
                        num_done += len(answer.numbers) * self.blocks_NT.shape[1]
                        now = time.monotonic()
                        size = sum(part.rows_BTR.nbytes for part in parts)
                        if size >= SHARD_BYTES or now - shard_began >= SHARD_EVERY_S:
                            whole, parts = parts, []
                            self._commit(whole, now - shard_began)
                            shard_began = now
                        on_progress(num_done, total, num_done / (now - began))
            finally:
                if parts:
                    self._commit(parts, time.monotonic() - shard_began)

    def _pending(self, answer: TopK) -> "_PendingBlocks":
        mass_B = answer.log_p_BTE[..., : self.top_k].exp().sum(-1).mean(-1)
        rows_BTR = self.row.pack(answer.ids_BTK.numpy(), answer.log_p_BTE.half().numpy())
        return _PendingBlocks(answer, rows_BTR, mass_B.tolist())

    def _commit(self, parts: list["_PendingBlocks"], seconds: float) -> None:
        """Write the shard, then the index that names it."""
        taken = [int(path.stem.removeprefix("shard-")) for path in self.folder.glob("shard-*.bin")]
        name = f"shard-{max(taken, default=-1) + 1:05d}.bin"
        data = np.concatenate([part.rows_BTR for part in parts]).tobytes()
        durable_files.write_bytes(self.folder / name, data)
        shard = {
            "name": name,
            "sha256": hashlib.sha256(data).hexdigest(),
            "num_bytes": len(data),
            "seconds": seconds,
            "blocks": [number for part in parts for number in part.answer.numbers],
            "mass": [value for part in parts for value in part.mass],
            "truncation_kl": [value for part in parts for value in part.answer.truncation_kl],
        }
        unknown = [part.answer.num_unknown for part in parts]
        if None not in unknown:
            shard["num_unknown"] = sum(filter(None, unknown))
        self._append_to_index(shard)

    def _append_to_index(self, shard: dict[str, Any]) -> None:
        line = index_line(shard).encode()
        path = self.folder / INDEX
        try:
            # In place: the index grows by a line for each shard, and the old lines stay true.
            with path.open("r+b" if path.exists() else "xb") as file:
                # Over the half line that a kill or a full disk may have left.
                file.seek(self._index_bytes)
                file.truncate()
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise durable_files.no_room(path, error) from error
        self._index_bytes += len(line)
        self._add(shard)

    def _drop_damaged(self, wanted: list[int]) -> None:
        """Remove shards from the index if their file is not what was written."""
        damaged = set()
        for place in sorted(set(self._shard_N[wanted].tolist()) - {-1}):
            shard = self._shards[place]
            why = durable_files.damage(self.folder / shard["name"], sum_of_shard(shard))
            if why:
                damaged.add(shard["name"])
                log.warning(
                    "%s %s; its %d blocks will be computed again.",
                    self.folder / shard["name"],
                    why,
                    shard["num_blocks"],
                )
        if damaged:
            shards = filter(None, (shard for shard, _ in iterate_index(self.folder)))
            sound = [index_line(shard) for shard in shards if shard["name"] not in damaged]
            durable_files.write_text(self.folder / INDEX, "".join(sound))
            (self.folder / OLD_INDEX).unlink(missing_ok=True)
            self._load()

    def batch(self, numbers: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Token ids [B, T], kept ids [B, T, K], log-probabilities [B, T, E]; as `events` takes."""
        rows_BTR = np.stack([self._block(number) for number in numbers])
        ids_BTK, log_p_BTE = self.row.unpack(rows_BTR)
        return self.blocks_NT[numbers], torch.from_numpy(ids_BTK), torch.from_numpy(log_p_BTE)

    def _block(self, number: int) -> PackedRows:
        shard = self._shards[self._shard_N[number]]
        shape = (-1, self.blocks_NT.shape[1], self.row.num_bytes)
        # Mapped anew each time: a map that stays would count as the run's memory, page by page.
        rows_NTR = np.memmap(self.folder / shard["name"], np.uint8, "r").reshape(shape)
        block_TR: PackedRows = np.array(rows_NTR[self._place_N[number]])
        return block_TR

    def facts(self, numbers: list[int]) -> TargetsFacts:
        """What a record says about the targets; mass and truncation are of these blocks."""
        mass, lost = self._mass_N[numbers], self._lost_N[numbers]
        unknown = [shard["num_unknown"] for shard in self._shards if "num_unknown" in shard]
        return TargetsFacts(
            key=self.key,
            top_k=self.top_k,
            num_positions=int((self._shard_N >= 0).sum()) * self.blocks_NT.shape[1],
            bytes_per_token=float(self.row.num_bytes),
            mean_mass=float(np.mean(mass)),
            seconds=sum(shard["seconds"] for shard in self._shards),
            id_bits=self.row.id_bits,
            truncation_kl=None if np.isnan(lost).any() else float(np.mean(lost)),
            num_unknown=sum(unknown) if unknown else None,
            num_refused=len(self.refused),
        )


@dataclasses.dataclass(frozen=True)
class _PendingBlocks:
    """Computed blocks that are not yet on disk."""

    answer: TopK
    rows_BTR: PackedRows
    mass: list[float]


def local_teacher(teacher: Loaded) -> TopKPass:
    """The pass of a teacher whose weights are here."""

    def score(
        blocks_NT: Blocks, numbers: list[int], top_k: int, temperature: float
    ) -> Generator[TopK, None, None]:
        for start in range(0, len(numbers), BATCH_BLOCKS):
            some = numbers[start : start + BATCH_BLOCKS]
            ids, log_p, lost = top_k_of(teacher, blocks_NT[some], top_k, temperature)
            yield TopK(some, ids.cpu(), log_p.cpu(), lost.tolist())

    return score


@torch.inference_mode()
def top_k_of(
    teacher: Loaded, blocks_BT: Tensor, top_k: int, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The k most likely tokens at each position, and what truncation costs.

    Returns:
        Ids [B, T, K]; log-probabilities of them and of the bucket [B, T, E]; and for each block
        [B] the mean KL(teacher || best guess from what is kept) in nats, where the guess spreads
        the bucket's mass evenly over its tokens.
    """
    logits_BTV = teacher.model(blocks_BT.to(teacher.model.device), use_cache=False).logits
    ids, log_p, lost = [], [], []
    for logits_TV in logits_BTV:
        scaled_TV = logits_TV.float() / temperature
        ids_TK = scaled_TV.topk(top_k, dim=-1).indices
        log_p_TE = kept_log_softmax(scaled_TV, ids_TK)
        ids.append(ids_TK)
        log_p.append(log_p_TE)
        some = slice(None, None, TRUNCATION_STRIDE)
        num_hidden = scaled_TV.shape[-1] - top_k
        lost.append(
            _truncation_kl(log_softmax(scaled_TV[some], -1), log_p_TE[some], num_hidden).mean()
        )
    return torch.stack(ids), torch.stack(log_p), torch.stack(lost)


def _truncation_kl(log_p_TV: Tensor, log_p_TE: Tensor, num_hidden: int) -> Tensor:
    """KL(p || p with its tail spread evenly over `num_hidden` tokens), shape [T], in nats."""
    if not num_hidden:
        return torch.zeros(len(log_p_TV))
    whole_T = (log_p_TV.exp() * log_p_TV).sum(-1)
    kept_TK, tail_T = log_p_TE[:, :-1], log_p_TE[:, -1]
    guess_T = (kept_TK.exp() * kept_TK).sum(-1) + tail_T.exp() * (tail_T - np.log(num_hidden))
    lost_T: Tensor = (whole_T - guess_T).clamp(min=0)
    return lost_T
