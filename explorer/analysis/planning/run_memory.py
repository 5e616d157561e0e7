"""What memory and disk a run needs, part by part, and what would fit where it does not.

The arithmetic of the training loop: nothing is measured here, and every part has its name.
A Llama-like layer keeps for its way back, for each token, ten vectors of the hidden size
and four of the MLP's channels.
"""

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

from explorer.analysis import numbers
from explorer.specs import DepthStudent, DistillSpec, RunSpec

LIBRARIES_BYTES = {"cpu": 450e6, "cuda": 600e6}
"""What a process takes with torch and transformers loaded, or CUDA's context of a device."""
CHUNK_POSITIONS = 512
"""As in the training loop: positions whose logits exist at one time."""
TARGET_BLOCKS = 4
"""As in the teacher's pass: blocks whose logits exist at one time."""
STORED_BITS = {8: 8.1, 4: 5.0}
"""Of a rounded linear weight: with its share of a row's scale and offset, or of the two 16-bit
numbers that a group of 32 has."""


@dataclasses.dataclass(frozen=True)
class ModelSize:
    """A model's size, before it is in memory."""

    num_parameters: int
    num_layers: int
    hidden_size: int
    intermediate_size: int
    vocab_size: int

    @property
    def per_layer(self) -> float:
        """Parameters of a layer, the embedding taken as tied."""
        return (self.num_parameters - self.vocab_size * self.hidden_size) / self.num_layers

    def rounded_bytes(self, place: "Machine", bits: int | None) -> float:
        """Bytes of the weights, all but the embedding rounded to so many bits; None rounds none."""
        if bits is None:
            return float(self.num_parameters * place.weight_bytes)
        embedding = self.vocab_size * self.hidden_size
        linear = (self.num_parameters - embedding) * STORED_BITS[bits] / 8
        return embedding * place.weight_bytes + linear

    def with_layers(self, num_layers: int) -> "ModelSize":
        """The size with fewer layers."""
        gone = (self.num_layers - num_layers) * self.per_layer
        size = int(self.num_parameters - gone)
        return dataclasses.replace(self, num_layers=num_layers, num_parameters=size)


@dataclasses.dataclass(frozen=True)
class Machine:
    """Where a run would be done."""

    device: str
    """cpu or cuda."""
    memory_bytes: int
    disk_bytes: int
    """Free where the store lies."""
    weight_bytes: int
    """Bytes of a weight that is not trained: 4 on a CPU, 2 on CUDA, unless the spec says."""
    num_shards: int = 1
    """Devices over which a student's layers are spread while it is trained."""


def memory_parts(
    spec: RunSpec, teacher: ModelSize, student: ModelSize, place: Machine
) -> dict[str, float]:
    """Bytes that are needed at one time, by what they are for, where the need is highest."""
    libraries = {"libraries": LIBRARIES_BYTES[place.device]}
    moments = _moments(spec, teacher, student, place)
    return libraries | max(moments, key=lambda parts: sum(parts.values()))


def _moments(
    spec: RunSpec, teacher: ModelSize, student: ModelSize, place: Machine
) -> Iterator[dict[str, float]]:
    """What is in memory in turn: to cut and to time, to ask the teacher, to train."""
    whole = {"the teacher's weights": teacher.rounded_bytes(place, None)}
    if spec.is_teacher:
        yield whole
        return
    # On a processor a model is rounded only after it was loaded.
    measured_bits = spec.torch_bits if place.device == "cuda" and spec.student is None else None
    name = "the student's weights" if spec.student else "the same weights rounded"
    if spec.student or spec.torch_bits:
        yield whole | {name: student.rounded_bytes(place, measured_bits)}
    else:
        yield whole
    if spec.distill is None:
        return
    distill = spec.distill
    teaching = {"the teacher's weights": teacher.rounded_bytes(place, distill.teacher_bits)}
    yield teaching | {"the teacher's logits": _asking(distill, teacher, place)}
    yield teaching | _training(distill, teacher, student, place)


def _asking(distill: DistillSpec, teacher: ModelSize, place: Machine) -> float:
    """The teacher's logits of some blocks at once, and one block's in float32 three times."""
    per_token = teacher.vocab_size * (TARGET_BLOCKS * place.weight_bytes + 3 * 4)
    return float(distill.block_tokens * per_token)


def _training(
    distill: DistillSpec, teacher: ModelSize, student: ModelSize, place: Machine
) -> dict[str, float]:
    tokens = (distill.micro_blocks or distill.blocks_per_step) * distill.block_tokens
    hidden, vocabulary = student.hidden_size, student.vocab_size
    embedding = vocabulary * hidden
    # In shards a layer is whole only while it computes.
    held = (student.num_parameters - embedding) / place.num_shards
    computing = student.per_layer if place.num_shards > 1 else 0.0
    trained = held + (embedding if distill.train_embeddings else 0)
    # bfloat16 under autocast, but norms and sums stay float32.
    autocast = distill.in_bfloat16(place.device)
    narrow = 2 if autocast else 4
    layer = tokens * (4 * 4 * hidden + narrow * (6 * hidden + 4 * student.intermediate_size))
    if distill.gradient_checkpointing:
        layers = layer + student.num_layers * tokens * 4 * hidden
    else:
        layers = student.num_layers * layer
    live = distill.method == "live"
    if live and distill.hidden_weight > 0:
        layers += teacher.num_layers * tokens * teacher.hidden_size * place.weight_bytes
    copies = 3 + (2 if live else 0)
    weights = 4 * (held + computing + embedding) + (trained * 2 if autocast else 0)
    positions, columns = min(CHUNK_POSITIONS, tokens), vocabulary
    if distill.vocab_sample:
        # A chunk is of one block, and of its tokens each may have others that the teacher kept.
        positions = min(CHUNK_POSITIONS, distill.block_tokens)
        columns = min(vocabulary, distill.block_tokens * (distill.top_k + 1) + distill.vocab_sample)
    logits = positions * columns * 4 * copies + (
        columns * hidden * 4 if columns < vocabulary else 0
    )
    return {
        "the student's weights": float(weights),
        "gradients": float(trained * 4),
        "the optimiser": float(trained * 8),
        "activations": float(layers),
        "a chunk of logits": float(logits),
    }


def disk_bytes(spec: RunSpec, student: ModelSize, place: Machine) -> float:
    """Bytes of targets, two checkpoints (the new one before the old goes) and the student."""
    if spec.student is None:
        return 0.0
    weights = float(student.num_parameters * place.weight_bytes)
    if spec.distill is None:
        return weights
    distill = spec.distill
    blocks = distill.heldout_blocks
    if distill.method == "cached":
        blocks += max(distill.max_tokens // distill.block_tokens, 1)
    targets = blocks * distill.block_tokens * distill.top_k * 4.2
    return weights + targets + 2 * student.num_parameters * 12


def refusal(spec: RunSpec, teacher: ModelSize, student: ModelSize, place: Machine) -> str | None:
    """Why a run cannot be done here, by how much, and what could; None where it fits."""
    parts = memory_parts(spec, teacher, student, place)
    need = sum(parts.values())
    if need > place.memory_bytes:
        largest = sorted(parts, key=lambda name: -parts[name])[:3]
        shown = ", ".join(f"{name} {numbers.size(parts[name])}" for name in largest)
        options = list(_that_fit(spec, teacher, student, place))
        advice = "Here would fit: " + "; ".join(options) if options else "Nothing smaller fits here"
        return (
            f"{spec.name} needs about {numbers.size(need)} of memory ({shown}), and this device "
            f"has {numbers.size(place.memory_bytes)}: {numbers.size(need - place.memory_bytes)} "
            f"too little. {advice}."
        )
    room = disk_bytes(spec, student, place)
    if room > place.disk_bytes:
        return (
            f"{spec.name} needs about {numbers.size(room)} of disk, and "
            f"{numbers.size(place.disk_bytes)} are free: {numbers.size(room - place.disk_bytes)} "
            "too little. Make room, or choose another folder with --results."
        )
    return None


def _that_fit(
    spec: RunSpec, teacher: ModelSize, student: ModelSize, place: Machine
) -> Iterator[str]:
    """Changes that bring a run into this memory, the gentlest first."""

    def need(distill: DistillSpec | None = spec.distill, size: ModelSize = student) -> float:
        return sum(
            memory_parts(
                spec.with_(distill=distill and distill.model_dump()), teacher, size, place
            ).values()
        )

    gentle: tuple[dict[str, Any], ...] = (
        {"micro_blocks": 1},
        {"gradient_checkpointing": True},
        {"micro_blocks": 1, "gradient_checkpointing": True},
        {"teacher_bits": 8},
    )
    found = False
    for changes in gentle if spec.distill else ():
        assert spec.distill is not None, "the loop has no turn otherwise"
        bytes_needed = need(spec.distill.with_(**changes))
        if bytes_needed <= place.memory_bytes and not (found and len(changes) > 1):
            found = True
            words = " with ".join(f"distill.{key}: {json.dumps(v)}" for key, v in changes.items())
            yield f"{words} ({numbers.size(bytes_needed)})"
    for num_shards in (2, 4, 8) if place.device == "cuda" and spec.distill else ():
        spread = dataclasses.replace(place, num_shards=num_shards)
        bytes_needed = sum(memory_parts(spec, teacher, student, spread).values())
        if num_shards > place.num_shards and bytes_needed <= place.memory_bytes:
            yield (
                f"{num_shards} such devices with accelerate launch --config_file "
                f"docs/accelerate/shards.yaml ({numbers.size(bytes_needed)} of each)"
            )
            break
    if isinstance(spec.student, DepthStudent):
        for layers in range(student.num_layers - 1, 0, -1):
            bytes_needed = need(size=student.with_layers(layers))
            if bytes_needed <= place.memory_bytes:
                yield f"student.num_layers: {layers} ({numbers.size(bytes_needed)})"
                return
