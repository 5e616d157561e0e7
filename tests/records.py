"""Builders of realistic records and answers, for every test that needs a filled store.

The numbers follow the shape of the real ones: more layers know more and take longer, the
documents that are hard for the teacher are hard for its students, timings are noisy.
"""

import datetime
import math
import os
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from explorer.files import durable_files
from explorer.records import (
    Capability,
    CorpusFacts,
    CurvePoint,
    Distillation,
    Energy,
    Environment,
    ErrorFacts,
    Interference,
    Latency,
    LoadPoint,
    ModelFacts,
    RunRecord,
    RuntimeFacts,
    TargetsFacts,
    TaskScore,
    TimedRequest,
    Timing,
)
from explorer.specs import DepthStudent, DistillSpec, RunSpec, SweepSpec, starter_sweep
from explorer.store import disk
from explorer.store.progress import Progress

TEACHER_LAYERS = 30
DEVICE_NAME = "AMD EPYC 7R13, 2 cores"
TASKS = {
    # task: (metric, chance, documents, the teacher's score)
    "starter_grammar": ("acc", 0.5, 480, 0.83),
    "starter_facts": ("acc_norm", 0.25, 240, 0.64),
    "starter_physical": ("acc_norm", 0.5, 200, 0.68),
    "starter_last_word": ("acc", 0.0, 160, 0.46),
}
"""A suite like the starter's."""


STUDY = Path(__file__).parents[1] / "results"
"""The committed study."""


def committed(num_layers: int | None = None) -> str:
    """The id of the committed study's teacher, or of its student of so many layers."""
    teacher, *students = starter_sweep().runs()
    if num_layers is None:
        return teacher.run_id
    return next(one.run_id for one in students if f"-{num_layers}l-" in one.run_id)


def study(
    name: str = "starter",
    layers: tuple[int, ...] = (24, 20, 15, 10, 6),
    seed: int = 0,
    *,
    control: bool = False,
) -> list[RunSpec]:
    """The specs of a teacher and its students; `seed` makes other specs of the same shape."""
    students = tuple(DepthStudent(num_layers=n) for n in layers)
    distill = DistillSpec(seed=seed)
    return SweepSpec(name=name, students=students, distill=distill, control=control).runs()


def write_study(
    root: Path,
    name: str = "starter",
    layers: tuple[int, ...] = (24, 20, 15, 10, 6),
    seed: int = 0,
    device_name: str = DEVICE_NAME,
) -> list[str]:
    """Write a finished teacher and its finished students; returns their ids, teacher first."""
    specs = study(name, layers, seed)
    for number, spec in enumerate(specs):
        write_run(root, make_record(spec=spec, seed=seed, number=number, device_name=device_name))
    return [spec.run_id for spec in specs]


def write_run(root: Path, record: RunRecord) -> Path:
    """Write a record with its spec, its log and, when it has scores, its answers."""
    disk.open_run(root, record.spec)
    folder = disk.run_folder(root, record.run_id)
    (folder / disk.LOG).write_text("prepare\ncapability\nlatency\n", encoding="utf-8")
    if record.capability:
        seed = int(record.environment.versions["test-seed"])
        disk.write_answers(root, record.run_id, make_answers(_layers(record.spec), seed=seed))
    disk.save(root, record)
    return folder


def leave_student(root: Path, run_id: str, model: Path) -> Path:
    """Let a run have a copy of this model as its student, where and as a run leaves it."""
    finished = root / disk.STUDENTS / run_id
    with tempfile.TemporaryDirectory(dir=root) as unfinished:
        shutil.copytree(model, Path(unfinished) / run_id / "model")
        durable_files.move_folder(Path(unfinished) / run_id, finished)
    disk.write_weights(root, run_id, finished / "model")
    return finished / "model"


def write_every_state(root: Path) -> dict[str, str]:
    """Write a teacher and a student, and a run in each other state; state to run id.

    Beside them, as `begun`, one that has begun and does not say yet what it does.
    """
    teacher, finished = write_study(root, layers=(15,))
    ids = {"teacher": teacher, "finished": finished}
    for number, state in enumerate(("failed", "cancelled")):
        record = make_record(num_layers=12 + number, status=state)
        write_run(root, record)
        ids[state] = record.run_id
    waiting = {"state": "queued", "queued_at": time.time(), "host": "another-host"}
    lost = {"state": "running", "stage": "distil", "host": "another-host", "updated_at": 1.0}
    for state, status in {"queued": waiting, "interrupted": lost}.items():
        ids[state] = _open(root, state)
        status = {"run_id": ids[state], "updated_at": time.time()} | status
        disk.write_status(root, ids[state], status)
    # The other host has touched it for the last time long ago.
    os.utime(root / ids["interrupted"] / disk.STATUS, (1e9, 1e9))
    ids["begun"] = _open(root, "begun")
    Progress(root, ids["begun"]).write_status(state="running")
    ids["running"] = _open(root, "running")
    Progress(root, ids["running"])(
        "distil", 40_000, 150_000, "tokens", loss=1.23, losses=[2.5, 1.23], tokens_per_s=412.0
    )
    return ids


def _open(root: Path, name: str) -> str:
    spec = study(name, layers=(20,))[1]
    disk.open_run(root, spec)
    return spec.run_id


def make_record(
    run_id: str | None = None,
    num_layers: int = TEACHER_LAYERS,
    seed: int = 0,
    *,
    spec: RunSpec | None = None,
    status: str = "finished",
    number: int = 0,
    device_name: str = DEVICE_NAME,
) -> RunRecord:
    """One record. 30 layers without a spec is the teacher; fewer are a distilled student.

    `number` moves the run in time, a quarter of an hour each. A failed or cancelled run
    has the error and neither scores nor timing.
    """
    if spec is None:
        student = None if num_layers == TEACHER_LAYERS else DepthStudent(num_layers=num_layers)
        taught = None if student is None else DistillSpec(seed=seed)
        base = RunSpec(name=f"test-{num_layers}l", student=student, distill=taught)
        spec = base if student else base.with_(name="teacher-starter")
    layers = _layers(spec)
    rng = np.random.default_rng([seed, layers])
    began = datetime.datetime(2026, 11, 20, 9, tzinfo=datetime.UTC)
    began += datetime.timedelta(minutes=15 * number)
    teacher = spec.teacher_run()
    finished = status == "finished"
    error = ErrorFacts(
        kind="NoRoom",
        message="The disk is full: 12 MB are free, a checkpoint needs 540 MB. Free some space.",
        stage="distil",
    )
    return RunRecord(
        run_id=run_id or spec.run_id,
        teacher_run_id=teacher.run_id if teacher else None,
        spec=spec,
        status=status,
        started_at=began.isoformat(timespec="seconds"),
        finished_at=(began + datetime.timedelta(minutes=12)).isoformat(timespec="seconds"),
        environment=Environment(
            python="3.11.9",
            platform="Linux-6.1-x86_64",
            hostname_hash="0a1b2c3d",
            device="cpu",
            device_name=device_name,
            num_cpus=2,
            threads=2,
            memory_bytes=8 * 2**30,
            versions={"torch": "2.13.0", "transformers": "5.23.0", "test-seed": str(seed)},
            commit="0123456789abcdef0123456789abcdef01234567",
        ),
        model=_model(layers),
        distillation=_distillation(layers, spec.distill, rng)
        if spec.distill and finished
        else None,
        capability=_capability(layers, seed) if finished else None,
        latency=_latency(layers, rng, with_teacher=teacher is not None) if finished else None,
        stage_seconds={"prepare": 3.1, "distil": 420.0, "capability": 210.0, "latency": 61.0},
        error=None if finished else error,
    )


def with_levels(record: RunRecord) -> RunRecord:
    """The record with four levels of load, and some failures."""
    own = record.latency.own
    points = [
        LoadPoint(
            kind="clients",
            level=at,
            turns=own.turns[:count],
            num_failed=failed,
            failures={"stalled": failed} if failed else {},
            seconds=2.0,
            output_tokens_per_s=rate,
        )
        for at, count, failed, rate in ((1, 10, 0, 20.0), (4, 4, 1, 60.0), (8, 0, 3, None))
    ]
    points.append(points[0].model_copy(update={"kind": "poisson", "level": 0.5}))
    timing = own.model_copy(
        update={
            "curve": points,
            "curve_note": "The sweep ended at 8.",
            "runtime": RuntimeFacts(
                name="llama.cpp", version="0.3", load_s=1.5, disk_bytes=98_000_000
            ),
            "energy": Energy(reason="There is no counter."),
            "num_failed": 2,
            "failures": {"refused": 2},
        }
    )
    return record.model_copy(update={"latency": record.latency.model_copy(update={"own": timing})})


def with_busy_machine(record: RunRecord, times_slower: float = 1.0) -> RunRecord:
    """The record as it is where others took 63 % of the processor while it was timed."""
    others = Interference(cpu_threshold=0.2, cpu_share_before=0.44, cpu_share_during=0.63)
    own = record.latency.own
    slower = [
        turn.model_copy(
            update={
                "ttft_ms": times_slower * turn.ttft_ms,
                "latency_ms": times_slower * turn.latency_ms,
            }
        )
        for turn in own.turns
    ]
    latency = record.latency.model_copy(
        update={
            "own": own.model_copy(update={"turns": slower}),
            "warning": others.warning,
            "interference": others,
        }
    )
    return record.model_copy(update={"latency": latency})


def make_busy(root: Path, run_id: str, times_slower: float = 1.0) -> None:
    """Write a finished run of a store again as one that was timed on a busy machine."""
    disk.save(root, with_busy_machine(disk.load(root, run_id), times_slower))


def make_answers(num_layers: int, seed: int = 0) -> pd.DataFrame:
    """Whether each document was answered rightly; hard documents are hard for all models."""
    rows = []
    for index, (task, (metric, chance, num_documents, score)) in enumerate(TASKS.items()):
        difficulty = np.random.default_rng([index, 99]).uniform(size=num_documents)
        own = np.random.default_rng([index, num_layers, seed]).uniform(size=num_documents)
        ability = chance + (score - chance) * _kept(num_layers)
        # A Gaussian-free copula: mostly the shared difficulty, partly the model's own luck.
        mixed = np.where(
            own < 0.7,
            difficulty,
            np.random.default_rng([index, num_layers, seed, 1]).uniform(size=num_documents),
        )
        for doc_id, right in enumerate(mixed < ability):
            rows.append((task, metric, doc_id, f"{task}-{doc_id:04d}", float(right)))
    return pd.DataFrame(rows, columns=["task", "metric", "doc_id", "doc_hash", "value"])


def _layers(spec: RunSpec) -> int:
    return spec.student.num_layers if spec.student else TEACHER_LAYERS


def _kept(num_layers: int) -> float:
    """Share of the teacher's capability above chance: 1 at 30 layers, a third at ten."""
    return 1 - math.pow(1 - min(num_layers, TEACHER_LAYERS) / TEACHER_LAYERS, 1.35) * 1.15


def _model(layers: int) -> ModelFacts:
    num_parameters = 28_311_552 + 576 + layers * 3_540_096
    kept = (
        None
        if layers == TEACHER_LAYERS
        else sorted(np.linspace(0, TEACHER_LAYERS - 1, layers).round().astype(int).tolist())
    )
    return ModelFacts(
        name="starter",
        fingerprint=f"{layers:016x}",
        architecture="LlamaForCausalLM",
        num_parameters=num_parameters,
        num_layers=layers,
        hidden_size=576,
        vocab_size=49_152,
        context_tokens=8192,
        dtype="float32",
        weight_bytes=4 * num_parameters,
        kept_layers=kept,
    )


def _distillation(layers: int, asked: DistillSpec, rng: np.random.Generator) -> Distillation:
    steps = max(2, asked.max_tokens // (asked.block_tokens * asked.blocks_per_step))
    rate = 1 / (0.0009 + layers * 0.00017)
    start, end = 9.5 - 0.26 * layers, 2.0 - 0.055 * layers
    curve = []
    for step in range(0, steps + 1, max(1, steps // 24)):
        share = step / steps
        loss = end + (start - end) * math.exp(-5 * share) + rng.normal(0, 0.03)
        tokens = round(asked.max_tokens * share)
        curve.append(
            CurvePoint(
                step=step,
                scored_tokens=tokens,
                seconds=tokens / rate,
                loss=max(loss, 0.05),
                learning_rate=asked.learning_rate * 0.5 * (1 + math.cos(math.pi * share)),
                heldout_kl=max(loss, 0.05) * 1.05,
                heldout_top1=0.7 - 0.08 * max(loss, 0.05),
            )
        )
    seconds = asked.max_tokens / rate
    return Distillation(
        corpus=CorpusFacts(
            name="starter",
            digest="5eed" * 4,
            num_documents=1180,
            num_tokens=301_000,
            overlap_13grams=dict.fromkeys(TASKS, 0),
        ),
        targets=TargetsFacts(
            key="ab" * 8,
            top_k=32,
            num_positions=asked.max_tokens,
            bytes_per_token=196,
            mean_mass=0.91,
            seconds=290.0,
        ),
        scored_tokens=asked.max_tokens,
        steps=steps,
        seconds=seconds,
        device_hours=seconds / 3600,
        num_trained_parameters=layers * 3_540_096,
        kl_before=start,
        kl_after=max(end, 0.05),
        top1_before=0.1,
        top1_after=0.6,
        curve=curve,
    )


def _capability(layers: int, seed: int) -> Capability:
    answers = make_answers(layers, seed)
    scores = []
    for task, (metric, chance, num_documents, _) in TASKS.items():
        values = answers.loc[answers["task"] == task, "value"]
        scores.append(
            TaskScore(
                task=task,
                metric=metric,
                score=float(values.mean()),
                stderr=float(values.std() / math.sqrt(num_documents)),
                chance=chance,
                num_documents=num_documents,
                num_documents_total=num_documents,
                num_fewshot=0,
                task_version="1",
                task_hash=f"{task}-hash",
                seconds=0.009 * layers * num_documents,
            )
        )
    return Capability(
        lm_eval_version="0.4.13", scores=scores, seconds=sum(s.seconds or 0 for s in scores)
    )


def _latency(layers: int, rng: np.random.Generator, *, with_teacher: bool) -> Latency:
    teacher = _timing(TEACHER_LAYERS, rng) if with_teacher else None
    return Latency(own=_timing(layers, rng), teacher=teacher, seconds=61.0)


def _timing(layers: int, rng: np.random.Generator) -> Timing:
    turns = []
    for _ in range(10):
        noise = float(rng.lognormal(0, 0.03))
        ttft_ms = (24 + 6.4 * layers) * noise
        tpot_ms = (5.2 + 0.9 * layers) * float(rng.lognormal(0, 0.03))
        turns.append(
            TimedRequest(ttft_ms=ttft_ms, latency_ms=ttft_ms + 63 * tpot_ms, num_output_tokens=64)
        )
    memory = 310 * 2**20 + 4 * layers * 3_540_096
    return Timing(batch_size=1, prompt_tokens=128, turns=turns, peak_memory_bytes=memory)
