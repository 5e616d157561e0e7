"""How much memory and disk a run needs, part by part, and what would fit instead.

The Run page and the check at the start of a run both use `refusal`. It is arithmetic about the
training loop; nothing is measured. For each token, a Llama-like layer keeps ten vectors of the
hidden size and four of the MLP's width for its backward pass.
"""

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

from explorer.analysis import numbers
from explorer.specs import DepthStudent, DistillSpec, RunSpec
from explorer.specs.model_size import ModelSize

LIBRARIES_BYTES = {"cpu": 450e6}
"""Memory of a process with torch and transformers loaded."""
CONTEXT_BYTES = 600e6
"""Memory of an accelerator that its libraries hold."""
CHUNK_POSITIONS = 512
"""Positions whose logits exist at one time, as in the training loop."""
TARGET_BLOCKS = 4
"""Blocks whose logits exist at one time, as in the teacher's pass."""
STORED_BITS = {8: 8.1, 4: 5.0}
"""Bits of a quantised linear weight, with its share of the scales and offsets."""
READ_AHEAD = 2
"""Tokens that are read of a corpus for each one of the budget: 8 characters, in tokens of 4."""
TEXT_BYTES = 5
"""Bytes of a token's text that a teacher writes, with the JSON around it."""
WEIGHT_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclasses.dataclass(frozen=True)
class Machine:
    """The machine that a run would use."""

    device: str
    """The kind of device: cpu, or that of an accelerator."""
    memory_bytes: int
    disk_bytes: int
    """Free space on the disk of the store's working folder."""
    weight_bytes: int
    """Bytes of a weight that is not trained: see `weight_bytes`."""
    num_shards: int = 1
    """Devices over which the student's layers are sharded during training."""


def weight_bytes(dtype: str, device: str) -> int:
    """Bytes of a weight that is not trained; `auto` is float32 on a CPU, else bfloat16."""
    if dtype == "auto":
        return 4 if device == "cpu" else 2
    return WEIGHT_BYTES[dtype]


def quantized_bytes(model: ModelSize, machine: Machine, bits: int | None) -> float:
    """Bytes of a model's weights, all but the embedding in `bits` bits; None quantises nothing."""
    if bits is None:
        return float(model.num_parameters * machine.weight_bytes)
    linear = (model.num_parameters - model.embedding_parameters) * STORED_BITS[bits] / 8
    return model.embedding_parameters * machine.weight_bytes + linear


def memory_parts(
    spec: RunSpec, teacher: ModelSize, student: ModelSize, machine: Machine
) -> dict[str, float]:
    """Bytes by purpose, at the moment of the run that needs most."""
    libraries = {"libraries": LIBRARIES_BYTES.get(machine.device, CONTEXT_BYTES)}
    moments = _moments(spec, teacher, student, machine)
    return libraries | max(moments, key=lambda parts: sum(parts.values()))


def _moments(
    spec: RunSpec, teacher: ModelSize, student: ModelSize, machine: Machine
) -> Iterator[dict[str, float]]:
    """What is in memory at each stage: cutting and timing, the teacher's pass, training."""
    whole = {"the teacher's weights": quantized_bytes(teacher, machine, None)}
    cache = _cache_of_timing(spec, teacher, student, machine)
    if spec.is_teacher:
        yield whole | cache
        return
    # On a CPU a model is quantised only after it was loaded.
    measured_bits = spec.torch_bits if machine.device != "cpu" and spec.student is None else None
    name = "the student's weights" if spec.student else "the same weights quantised"
    if spec.student or spec.torch_bits:
        yield whole | {name: quantized_bytes(student, machine, measured_bits)} | cache
    else:
        yield whole | cache
    if spec.distill is None:
        return
    distill = spec.distill
    teaching = {"the teacher's weights": quantized_bytes(teacher, machine, distill.teacher_bits)}
    yield teaching | {"the teacher's logits": _teacher_logits(distill, teacher, machine)}
    yield teaching | _training(distill, teacher, student, machine)


def _cache_of_timing(
    spec: RunSpec, teacher: ModelSize, student: ModelSize, machine: Machine
) -> dict[str, float]:
    """Keys and values of the batch that is timed; the models answer in turns.

    Levels of load do not count: one that does not fit ends their sweep, not the run.
    """
    if spec.latency is None:
        return {}
    latency = spec.latency
    tokens = latency.batch_size * (latency.prompt_tokens + latency.output_tokens)
    values = max(model.num_layers * model.kv_values for model in (teacher, student))
    return {"the KV cache": float(tokens * values * machine.weight_bytes)}


def _teacher_logits(distill: DistillSpec, teacher: ModelSize, machine: Machine) -> float:
    """The teacher's logits: several blocks at once, and one block in float32 three times."""
    per_token = teacher.vocab_size * (TARGET_BLOCKS * machine.weight_bytes + 3 * 4)
    return float(distill.block_tokens * per_token)


def _training(
    distill: DistillSpec, teacher: ModelSize, student: ModelSize, machine: Machine
) -> dict[str, float]:
    tokens = (distill.micro_blocks or distill.blocks_per_step) * distill.block_tokens
    hidden, vocabulary = student.hidden_size, student.vocab_size
    embedding = vocabulary * hidden
    # A sharded layer is whole only while it computes.
    held = (student.num_parameters - embedding) / machine.num_shards
    computing = student.per_layer if machine.num_shards > 1 else 0.0
    trained = held + (embedding if distill.train_embeddings else 0)
    # bfloat16 under autocast, but norms and sums stay float32.
    autocast = distill.in_bfloat16(machine.device)
    narrow = 2 if autocast else 4
    layer = tokens * (4 * 4 * hidden + narrow * (6 * hidden + 4 * student.intermediate_size))
    if distill.gradient_checkpointing:
        layers = layer + student.num_layers * tokens * 4 * hidden
    else:
        layers = student.num_layers * layer
    live = distill.method == "live"
    if live and distill.hidden_weight > 0:
        layers += teacher.num_layers * tokens * teacher.hidden_size * machine.weight_bytes
    copies = 3 + (2 if live else 0)
    weights = 4 * (held + computing + embedding) + (trained * 2 if autocast else 0)
    positions, columns = min(CHUNK_POSITIONS, tokens), vocabulary
    if distill.vocab_sample:
        # A chunk is one block, and the teacher's top tokens may differ for each of its positions.
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


def disk_bytes(spec: RunSpec, student: ModelSize, machine: Machine) -> float:
    """Bytes of what a run writes: see `disk_parts`."""
    return sum(disk_parts(spec, student, machine).values())


def disk_parts(spec: RunSpec, student: ModelSize, machine: Machine) -> dict[str, float]:
    """Bytes by purpose; of two checkpoints the old one goes last."""
    if spec.student is None:
        return {}
    weights = {"the student": float(student.num_parameters * machine.weight_bytes)}
    if spec.distill is None:
        return weights
    distill = spec.distill
    heldout = distill.heldout_blocks * distill.block_tokens
    whole = heldout + max(distill.max_tokens, distill.block_tokens)
    token_bytes = 2 if student.vocab_size <= 1 << 16 else 4
    return weights | {
        "the teacher cache": (whole if distill.method == "cached" else heldout)
        * (distill.top_k * 4.2),
        "checkpoints": 2.0 * student.num_parameters * 12,
        "the corpus's tokens": float(READ_AHEAD * whole * token_bytes),
        "the teacher's text": float(TEXT_BYTES * whole) if distill.corpus == "teacher" else 0.0,
    }


def refusal(spec: RunSpec, teacher: ModelSize, student: ModelSize, machine: Machine) -> str | None:
    """Why a run does not fit on this machine, and what would fit; None if it fits."""
    parts = memory_parts(spec, teacher, student, machine)
    need = sum(parts.values())
    if need > machine.memory_bytes:
        too_little = numbers.size(need - machine.memory_bytes)
        largest = sorted(parts, key=lambda name: -parts[name])[:3]
        shown = ", ".join(f"{name} {numbers.size(parts[name])}" for name in largest)
        options = list(_that_fit(spec, teacher, student, machine))
        advice = "These fit: " + "; ".join(options) if options else "No smaller variant fits"
        return (
            f"{spec.name} needs about {numbers.size(need)} of memory ({shown}), but this device "
            f"has {numbers.size(machine.memory_bytes)}, {too_little} too little. {advice}."
        )
    disk_need = disk_bytes(spec, student, machine)
    if disk_need > machine.disk_bytes:
        return (
            f"{spec.name} needs about {numbers.size(disk_need)} of disk, but only "
            f"{numbers.size(machine.disk_bytes)} are free, "
            f"{numbers.size(disk_need - machine.disk_bytes)} too little. Free some space, or "
            "choose another folder with --results."
        )
    return None


def _that_fit(
    spec: RunSpec, teacher: ModelSize, student: ModelSize, machine: Machine
) -> Iterator[str]:
    """Changes with which the run fits in memory, the smallest change first."""

    def need(distill: DistillSpec | None = spec.distill, size: ModelSize = student) -> float:
        return sum(
            memory_parts(
                spec.with_(distill=distill and distill.model_dump()), teacher, size, machine
            ).values()
        )

    gentle: tuple[dict[str, Any], ...] = (
        {"micro_blocks": 1},
        {"gradient_checkpointing": True},
        {"micro_blocks": 1, "gradient_checkpointing": True},
        {"teacher_bits": 8},
    )
    one_fits = False
    for changes in gentle if spec.distill else ():
        assert spec.distill is not None, "the loop is empty otherwise"
        bytes_needed = need(spec.distill.with_(**changes))
        if bytes_needed <= machine.memory_bytes and not (one_fits and len(changes) > 1):
            one_fits = True
            words = " with ".join(f"distill.{key}: {json.dumps(v)}" for key, v in changes.items())
            yield f"{words} ({numbers.size(bytes_needed)})"
    for num_shards in (2, 4, 8) if machine.device != "cpu" and spec.distill else ():
        spread = dataclasses.replace(machine, num_shards=num_shards)
        bytes_needed = sum(memory_parts(spec, teacher, student, spread).values())
        if num_shards > machine.num_shards and bytes_needed <= machine.memory_bytes:
            yield (
                f"{num_shards} such devices with accelerate launch --config_file "
                f"docs/accelerate/shards.yaml ({numbers.size(bytes_needed)} of each)"
            )
            break
    if isinstance(spec.student, DepthStudent):
        for layers in range(student.num_layers - 1, 0, -1):
            bytes_needed = need(size=student.with_layers(layers))
            if bytes_needed <= machine.memory_bytes:
                yield f"student.num_layers: {layers} ({numbers.size(bytes_needed)})"
                return
