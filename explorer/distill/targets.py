"""The teacher's distributions, computed once and shared by all students.

For every position of a block the k largest log-probabilities and their token ids lie
in two memory-mapped files; the rest of the mass is one tail bucket that needs no
storage. Blocks are filled in as runs need them, so a small run pays for a small part
and a larger one adds to it. The folder's key is a hash of what decides the numbers:
teacher, corpus, block length, k and temperature.

    results/.work/targets/<key>/  meta.json  ids.bin  log_probs.bin  done.npy
"""

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from explorer.distill.losses import with_tail
from explorer.errors import DamagedStore, NoRoom
from explorer.models.loading import Loaded
from explorer.records import TargetsFacts

# Shape letters: N blocks, B blocks of a batch, T tokens of a block, K kept tokens, V vocabulary.

BATCH_BLOCKS = 4


class Targets:
    """A folder of cached targets, opened for one teacher and corpus."""

    def __init__(self, root: Path, blocks_NT: Tensor, identity: dict[str, Any]) -> None:
        """Open the folder of this identity, or make an empty one.

        Args:
            root: The folder that holds all targets.
            blocks_NT: Token ids of the whole corpus.
            identity: What decides the numbers; needs `top_k`, `temperature`, `vocab_size`.

        Raises:
            DamagedStore: The folder's files are not of the size that its meta.json says.
            NoRoom: The disk has no room for them.
        """
        self.identity = {**identity, "num_blocks": len(blocks_NT), "format": 1}
        text = json.dumps(self.identity, sort_keys=True)
        self.key = hashlib.sha256(text.encode()).hexdigest()[:16]
        self.folder = root / self.key
        self.blocks_NT = blocks_NT
        self.top_k = min(int(identity["top_k"]), int(identity["vocab_size"]))
        self._id_type = np.uint16 if identity["vocab_size"] <= 1 << 16 else np.int32
        self._shape = (*blocks_NT.shape, self.top_k)
        self._lock = FileLock(root / f"{self.key}.lock")
        root.mkdir(parents=True, exist_ok=True)
        with self._lock:
            self._open()

    def _open(self) -> None:
        meta = self.folder / "meta.json"
        new = not meta.exists()
        self.folder.mkdir(exist_ok=True)
        sizes = {"ids.bin": self._id_type, "log_probs.bin": np.float16}
        mode: Any = "w+" if new else "r+"
        maps = []
        for name, dtype in sizes.items():
            path = self.folder / name
            expected = int(np.prod(self._shape)) * np.dtype(dtype).itemsize
            if not new and (not path.exists() or path.stat().st_size != expected):
                raise DamagedStore(
                    f"{path} should have {expected:,} bytes. Remove the folder {self.folder}; the "
                    "teacher's pass is then done again."
                )
            try:
                maps.append(np.memmap(path, dtype=dtype, mode=mode, shape=self._shape))
            except OSError as error:
                raise NoRoom(
                    f"Could not open {path} ({expected:,} bytes): {error.strerror}."
                ) from error
        self.ids_NTK, self.log_p_NTK = maps
        if new:
            np.save(self.folder / "done.npy", np.zeros(self._shape[0], dtype=bool))
            meta.write_text(json.dumps({"identity": self.identity, "seconds": 0.0}, indent=1))

    @property
    def done_N(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Which blocks are filled in."""
        found: np.ndarray[Any, np.dtype[np.bool_]] = np.load(self.folder / "done.npy")
        return found

    def fill(
        self,
        load_teacher: Callable[[], Loaded],
        wanted: list[int],
        on_progress: Callable[[int, int, float], None],
    ) -> None:
        """Compute what is missing of the wanted blocks; others that want them too wait here.

        Args:
            load_teacher: Called only when something is missing.
            wanted: Block numbers.
            on_progress: Called with (tokens done, tokens missing, tokens per second).
        """
        with self._lock:
            done_N = self.done_N
            missing = [number for number in wanted if not done_N[number]]
            if not missing:
                return
            teacher = load_teacher()
            began, block_tokens = time.monotonic(), self._shape[1]
            meta = json.loads((self.folder / "meta.json").read_text())
            seconds_before = meta["seconds"]
            for start in range(0, len(missing), BATCH_BLOCKS):
                numbers = missing[start : start + BATCH_BLOCKS]
                ids_BTK, log_p_BTK = top_k_of(
                    teacher, self.blocks_NT[numbers], self.top_k, self.identity["temperature"]
                )
                self.ids_NTK[numbers] = ids_BTK.cpu().numpy().astype(self._id_type)
                self.log_p_NTK[numbers] = log_p_BTK.cpu().numpy()
                done_N[numbers] = True
                seconds = time.monotonic() - began
                num_done = (start + len(numbers)) * block_tokens
                last = start + BATCH_BLOCKS >= len(missing)
                if last or start % (8 * BATCH_BLOCKS) == 0:
                    self._commit(done_N, meta | {"seconds": seconds_before + seconds})
                on_progress(num_done, len(missing) * block_tokens, num_done / seconds)

    def _commit(self, done_N: np.ndarray[Any, np.dtype[np.bool_]], meta: dict[str, Any]) -> None:
        """The numbers first, then what says that they are there."""
        try:
            self.ids_NTK.flush()
            self.log_p_NTK.flush()
            partial = self.folder / "done.partial.npy"
            np.save(partial, done_N)
            partial.replace(self.folder / "done.npy")
            (self.folder / "meta.json").write_text(json.dumps(meta, indent=1))
        except OSError as error:
            raise NoRoom(f"Could not write targets to {self.folder}: {error.strerror}.") from error

    def batch(self, numbers: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Token ids [B, T], kept ids [B, T, K] and log-probabilities [B, T, E], as `events`."""
        ids_BTK = torch.from_numpy(self.ids_NTK[numbers].astype(np.int64))
        log_p_BTE = torch.from_numpy(self.log_p_NTK[numbers])
        if self.top_k < self.identity["vocab_size"]:
            log_p_BTE = with_tail(log_p_BTE.float())
        return self.blocks_NT[numbers], ids_BTK, log_p_BTE

    def facts(self, numbers: list[int]) -> TargetsFacts:
        """What a record keeps of the targets that a run used."""
        mass = [float(np.exp(self.log_p_NTK[n].astype(np.float32)).sum(-1).mean()) for n in numbers]
        meta = json.loads((self.folder / "meta.json").read_text())
        num_bytes = np.dtype(self._id_type).itemsize + np.dtype(np.float16).itemsize
        return TargetsFacts(
            key=self.key,
            top_k=self.top_k,
            num_positions=int(self.done_N.sum()) * self._shape[1],
            bytes_per_token=float(num_bytes * self.top_k),
            mean_mass=float(np.mean(mass)),
            seconds=float(meta["seconds"]),
        )


@torch.inference_mode()
def top_k_of(
    teacher: Loaded, blocks_BT: Tensor, top_k: int, temperature: float
) -> tuple[Tensor, Tensor]:
    """The k most likely tokens at each position and their log-probabilities in float16."""
    logits_BTV = teacher.model(blocks_BT.to(teacher.model.device), use_cache=False).logits
    ids, log_p = [], []
    for logits_TV in logits_BTV:
        scaled_TV = logits_TV.float() / temperature
        values_TK, ids_TK = scaled_TV.topk(top_k, dim=-1)
        ids.append(ids_TK)
        log_p.append((values_TK - torch.logsumexp(scaled_TV, dim=-1, keepdim=True)).half())
    return torch.stack(ids), torch.stack(log_p)
