"""How do page and shell behave with 1,000, 10,000 and 100,000 runs?

    python benchmarks/store_scale.py                  1,000 and 10,000 runs, then 100 sessions
    python benchmarks/store_scale.py --runs 1000
    python benchmarks/store_scale.py --large          100,000 runs as well: 12 GB of disk

Each run is a student of the committed study with other seeds, other answers and other times: a
record and the answers to 1,356 documents, but no samples. One run in a hundred is a teacher. The
stores lie in a temporary folder, which is removed.

Every step is a process of its own, as a person would start it: the index is built once, then
`explorer ls`, `export` and `compare` of 100 runs, and the Explore page opened, filtered and given
another axis. Times are wall-clock seconds; `ls_s` is above what `explorer --help` takes. `sessions`
are browsers' websockets to one dashboard on 1,000 runs, opened by one script. The load of the
machine is printed beside them, since other work lengthens every time. The last line is JSON.
"""

import dataclasses
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from explorer.specs import RunSpec

ROOT = Path(__file__).parents[1]
STUDY = ROOT / "results"
LAYERS = (24, 20, 15, 10, 6)
STUDENTS_PER_TEACHER = 99
SEEDS = 3
FLIPPED = 0.08
"""Share of documents that another run answers differently."""
FIRST_DAY = datetime(2026, 1, 1, tzinfo=UTC)
COMPARED = 100
SESSIONS = 100
SESSION_TIMEOUT_S = 300.0


@dataclasses.dataclass(frozen=True)
class Template:
    """A committed run, ready to be varied."""

    spec: RunSpec
    record: dict[str, Any]
    answers: pa.Table


def templates() -> tuple[Template, dict[tuple[int, bool], Template]]:
    """The committed teacher, and its students by number of layers and whether labels only."""
    teacher, students = None, {}
    for folder in sorted(STUDY.iterdir()):
        if not (folder / "answers.parquet").is_file():
            continue
        record = json.loads((folder / "record.json").read_text(encoding="utf-8"))
        spec = RunSpec.from_yaml((folder / "spec.yaml").read_text(encoding="utf-8"), str(folder))
        template = Template(spec, record, pq.read_table(folder / "answers.parquet"))
        if spec.format is None and spec.is_teacher:
            teacher = template
        elif spec.format is None and spec.student.kind == "depth":
            students[spec.student.num_layers, spec.distill.method == "labels"] = template
    assert teacher is not None, f"{STUDY} holds no teacher"
    assert len(students) > len(LAYERS), f"{STUDY} holds no control arm"
    return teacher, students


def generate(root: Path, num_runs: int) -> None:
    """Write a store of `num_runs` finished runs."""
    teacher, students = templates()
    rng = np.random.default_rng(num_runs)
    teacher_id = ""
    for number in range(num_runs):
        family, place = divmod(number, STUDENTS_PER_TEACHER + 1)
        group, seed = divmod(place, SEEDS)
        if place == 0:
            spec = teacher.spec.with_(latency=teacher.spec.latency.with_(seed=family))
            teacher_id = spec.run_id
            template = teacher
        else:
            is_control = group % 5 == 4
            layers = LAYERS[group % len(LAYERS)] if not is_control else (10, 15)[group % 2]
            template = students.get((layers, is_control)) or students[layers, False]
            spec = template.spec.with_(
                name=f"scale-{layers}l{'-labels' if is_control else ''}",
                latency=template.spec.latency.with_(seed=family),
                distill=template.spec.distill.with_(
                    seed=seed, max_tokens=200_000 + 1024 * (group if not is_control else group - 1)
                ).model_dump(),
            )
        write_run(root, template, spec, teacher_id, number, rng)


def write_run(
    root: Path,
    template: Template,
    spec: RunSpec,
    teacher_id: str,
    number: int,
    rng: np.random.Generator,
) -> None:
    """Write one run's spec, record and answers."""
    values = template.answers["value"].to_numpy().copy()
    if not spec.is_teacher:
        flipped = rng.random(len(values)) < FLIPPED
        values[flipped] = 1 - values[flipped]
    place = template.answers.schema.get_field_index("value")
    answers = template.answers.set_column(place, "value", pa.array(values))
    record = json.loads(json.dumps(template.record))
    began = FIRST_DAY + timedelta(minutes=5 * number)
    record |= {
        "run_id": spec.run_id,
        "teacher_run_id": None if spec.is_teacher else teacher_id,
        "spec": json.loads(spec.model_dump_json()),
        "started_at": began.isoformat(timespec="seconds"),
        "finished_at": (began + timedelta(minutes=4)).isoformat(timespec="seconds"),
    }
    tasks = answers["task"].to_numpy(zero_copy_only=False)
    metrics = answers["metric"].to_numpy(zero_copy_only=False)
    for score in record["capability"]["scores"]:
        mine = values[(tasks == score["task"]) & (metrics == score["metric"])]
        score["score"] = float(mine.mean())
        score["stderr"] = float(mine.std() / np.sqrt(len(mine)))
    factor = float(rng.lognormal(0, 0.05))
    for request in record["latency"]["own"]["turns"]:
        request["ttft_ms"] *= factor
        request["latency_ms"] *= factor
    folder = root / spec.run_id
    folder.mkdir(parents=True)
    (folder / "spec.yaml").write_text(spec.to_yaml(), encoding="utf-8")
    pq.write_table(answers, folder / "answers.parquet", compression="snappy")
    (folder / "record.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
