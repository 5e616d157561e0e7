"""Hypothesis strategies for the domain's values, in one file."""

import json

import numpy as np
import pandas as pd
from hypothesis import strategies as st

from explorer.records import (
    SCHEMA_VERSION,
    Capability,
    Environment,
    ErrorFacts,
    Latency,
    ModelFacts,
    RunRecord,
    RuntimeFacts,
    TaskScore,
    TimedRequest,
    Timing,
    Usage,
)
from explorer.specs import (
    BothStudent,
    CapabilitySpec,
    CheckpointStudent,
    DepthStudent,
    DistillSpec,
    FreshStudent,
    LatencySpec,
    RunSpec,
    SweepSpec,
    WidthStudent,
    outside_torch,
)

positive = st.floats(1e-9, 1e9)
share = st.floats(0, 1)
names = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,20}", fullmatch=True)
texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30)
teachers = texts.filter(lambda name: outside_torch(name) is None)
"""Names of models that torch runs: of others no student can be cut."""
counts = st.integers(1, 10**9)

depth_students = st.builds(
    DepthStudent,
    num_layers=st.integers(1, 200),
    choice=st.sampled_from(["block_influence", "uniform", "greedy"]),
    start_from=st.none() | texts,
)
students = st.one_of(
    depth_students,
    st.builds(
        WidthStudent,
        kind=st.just("width"),
        num_parameters=st.just(None),
        hidden_size=counts,
        intermediate_size=st.none() | counts,
    ),
    st.builds(
        BothStudent, kind=st.just("both"), num_parameters=counts, min_depth=st.floats(0.1, 1)
    ),
    st.builds(CheckpointStudent, kind=st.just("checkpoint"), model=texts),
    st.builds(
        FreshStudent,
        kind=st.just("fresh"),
        num_parameters=st.just(None),
        num_layers=st.none() | st.integers(1, 200),
        seed=st.integers(0, 2**31),
    ),
)
distill_specs = st.builds(
    DistillSpec,
    max_tokens=counts,
    kd_weight=share,
    temperature=positive,
    learning_rate=positive,
    top_k=st.integers(1, 1000),
    seed=st.integers(0, 2**31),
    train_embeddings=st.booleans(),
    train_layers=st.sampled_from(["all", "auto"]),
)
capability_specs = st.builds(
    CapabilitySpec,
    tasks=st.lists(texts, min_size=1, max_size=4).map(tuple),
    limit=st.none() | counts,
    num_fewshot=st.none() | st.integers(0, 50),
)
latency_specs = st.builds(LatencySpec, prompt_tokens=counts, repeats=st.integers(2, 1000))


@st.composite
def run_specs(draw):
    """Runs of a model as it is, of a student as it was cut, and of a student that is taught."""
    student = draw(st.none() | students)
    return RunSpec(
        name=draw(names),
        teacher=draw(teachers),
        student=student,
        distill=draw(st.none() | distill_specs) if student else None,
        capability=draw(st.none() | capability_specs),
        latency=draw(st.none() | latency_specs),
        threads=draw(st.none() | st.integers(1, 512)),
    )


sweep_specs = st.builds(
    SweepSpec,
    name=names,
    students=st.lists(students, min_size=1, max_size=5, unique=True).map(tuple),
    distill=st.none() | distill_specs,
)

environments = st.builds(
    Environment,
    python=texts,
    platform=texts,
    hostname_hash=texts,
    device_name=texts,
    device=st.sampled_from(["cpu", "cuda"]),
    num_cpus=counts,
    threads=counts,
    memory_bytes=counts,
    versions=st.dictionaries(texts, texts, max_size=3),
)
models = st.builds(
    ModelFacts,
    name=texts,
    fingerprint=texts,
    architecture=texts,
    dtype=texts,
    num_parameters=counts,
    num_layers=counts,
    hidden_size=counts,
    vocab_size=counts,
    weight_bytes=counts,
    kept_layers=st.none() | st.lists(st.integers(0, 200), max_size=5),
    kept_widths=st.none() | st.dictionaries(texts, st.tuples(counts, counts), max_size=4),
)
scores = st.builds(
    TaskScore,
    task=texts,
    metric=texts,
    score=share,
    stderr=st.none() | share,
    chance=st.none() | share,
    num_documents=counts,
    num_documents_total=st.none() | counts,
    num_fewshot=st.none() | st.integers(0, 50),
    task_version=st.none() | texts,
)
timings = st.builds(
    Timing,
    batch_size=counts,
    prompt_tokens=st.none() | counts,
    runtime=st.none() | st.builds(RuntimeFacts, name=texts),
    turns=st.lists(
        st.builds(TimedRequest, ttft_ms=positive, latency_ms=positive, num_output_tokens=counts),
        max_size=4,
    ),
)


usages = st.builds(
    Usage, num_replies=counts, prompt_tokens=counts, reasoning_tokens=st.none() | counts
)
capabilities = st.builds(
    Capability,
    lm_eval_version=texts,
    scores=st.lists(scores, max_size=4),
    seconds=share,
    usage=st.none() | usages,
)
latencies = st.builds(Latency, own=timings, teacher=st.none() | timings, seconds=share)


@st.composite
def run_records(draw):
    """Finished, failed and cancelled runs, with anything that may be missing missing at times."""
    spec = draw(run_specs())
    teacher = spec.teacher_run()
    return RunRecord(
        run_id=spec.run_id,
        teacher_run_id=teacher.run_id if teacher else None,
        spec=spec,
        status=draw(st.sampled_from(["finished", "failed", "cancelled"])),
        started_at="2026-11-24T04:00:00+00:00",
        finished_at="2026-11-24T04:10:00+00:00",
        environment=draw(environments),
        model=draw(st.none() | models),
        capability=draw(st.none() | capabilities),
        latency=draw(st.none() | latencies),
        error=draw(st.none() | st.builds(ErrorFacts, kind=texts, message=texts, stage=texts)),
    )


@st.composite
def old_records(draw):
    """Plain data of records as every schema version wrote them."""
    data = json.loads(draw(run_records()).to_json())
    data["schema_version"] = draw(st.integers(1, SCHEMA_VERSION))
    if data["schema_version"] == 1:
        if data["environment"]:
            del data["environment"]["num_processes"]
        latency, capability = data["latency"] or {}, data["capability"] or {}
        for timing in (latency.get("own"), latency.get("teacher")):
            if timing:
                timing["prompt_tokens"] = timing["prompt_tokens"] or 0
                if draw(st.booleans()):
                    del timing["runtime"]
        for score in capability.get("scores", []):
            score["num_fewshot"] = score["num_fewshot"] or 0
            score["num_documents_total"] = score["num_documents_total"] or score["num_documents"]
        if usage := capability.get("usage"):
            usage["reasoning_tokens"] = usage["reasoning_tokens"] or 0
    return data


coordinates = st.one_of(st.none(), st.floats(-1e6, 1e6), st.integers(0, 3).map(float))
"""Ties and gaps are likely, as in real frames."""


@st.composite
def planes(draw):
    """Runs with something to maximise and something to minimise."""
    points = draw(st.lists(st.tuples(coordinates, coordinates), max_size=20))
    frame = pd.DataFrame(points, columns=["kept", "ms"]).astype(float)
    return frame.assign(run_id=[f"r{i}" for i in range(len(frame))])


@st.composite
def paired_answers(draw):
    """Right-or-wrong answers of a student and its teacher to the same documents."""
    count = draw(st.integers(1, 60))
    bits = st.lists(st.sampled_from([0.0, 1.0]), min_size=count, max_size=count).map(np.array)
    return draw(bits), draw(bits)
