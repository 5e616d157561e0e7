"""The readers of outside data: their valid files, how they are called, and what they promise."""

import asyncio
import contextlib
import functools
import io
import json
import math
import shutil
import types
import urllib.parse
import warnings
import zipfile
from pathlib import Path
from typing import Any

import gguf
import httpx2
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from explorer.catalogue import api_prices, prices
from explorer.distill import corpus
from explorer.errors import BadCorpus, ExplorerError
from explorer.files import text_files, yaml_files
from explorer.index import run_states
from explorer.latency.runtimes import endpoint_errors, endpoint_stream
from explorer.latency.runtimes.endpoint_client import RequestFailed
from explorer.lm_eval_io import evaluations, import_run, results, upload
from explorer.models import sizes
from explorer.models.gguf import gguf_files, header
from explorer.pages.run import evaluation_form
from explorer.pages.shared import widgets
from explorer.records import RunRecord, migrations, record
from explorer.specs import CapabilitySpec, RunSpec, base, distill, evaluation, runs, search, sweeps
from explorer.store import disk
from explorer.tasks import answer_keys, custom, question_columns, question_files
from tests import records
from tests.fuzz import mutations
from tests.fuzz.harness import Reader, repository
from tests.unit.test_imported_timings import aiperf, vllm

GOLDEN = Path(__file__).parents[1] / "golden"
RUN_ID = "fuzzed-12345678"


# Specs


def _spec_seeds() -> list[tuple[str, bytes]]:
    texts = [path.read_bytes() for path in sorted((repository() / "docs/studies").glob("*.yaml"))]
    students: list[dict[str, Any]] = [
        {"num_layers": 3, "choice": "greedy"},
        {"kind": "width", "num_attention_heads": 4, "hidden_size": 64},
        {"kind": "both", "num_parameters": 60_000_000},
        {"kind": "fresh", "num_layers": 4},
        {"kind": "checkpoint", "model": "org/small"},
    ]
    live = {"method": "live", "hidden_weight": 0.5, "on_policy_fraction": 0.2, "loss": "jsd"}
    endpoint = "endpoint:http://127.0.0.1:8000/v1/completions#m"
    many: list[Any] = [
        sweeps.starter_sweep(),
        sweeps.SweepSpec.parse({"students": students, "gguf": ["f16"], "torch_bits": [8]}),
        sweeps.SweepSpec.parse({"students": students[2:3], "distill": {}, "control": True}),
        *(RunSpec.parse({"student": student, "distill": live}) for student in students),
        RunSpec.parse({"capability": {"tasks": ["a"], "api": {"max_usd": 1.0}}, "gguf": "q8_0"}),
        RunSpec.parse({"latency": {"workload": "chat", "concurrency": [1, 2]}, "torch_bits": 8}),
        RunSpec.parse({"teacher": endpoint, "student": students[4], "distill": {}}),
        search.TuneSpec.parse(
            {
                "run": {"student": {"num_layers": 3}, "distill": {}},
                "variants": [
                    {"distill": {"learning_rate": 0.001}},
                    {"student": {"kind": "fresh", "num_layers": 2}},
                ],
            }
        ),
    ]
    texts += [spec.to_yaml().encode() for spec in many]
    impossible: list[dict[str, Any]] = [
        {"student": {"num_layers": 2}, "distill": {"on_policy_fraction": 0.5}},
        {"student": {"num_layers": 2}, "distill": {"method": "live", "vocab_sample": 64}},
        {"student": {"num_layers": 2}, "distill": live | {"kd_weight": 0}},
        {"student": {"num_layers": 2}, "distill": live | {"prompt_tokens": 900}},
        {"distill": {}},
        {"gguf": "f16", "torch_bits": 8},
        {"teacher": "llamacpp:a.gguf", "student": students[0]},
        {"teacher": "endpoint:http://a?key=b#m"},
        {"teacher": endpoint, "student": students[0]},
        {"teacher": endpoint, "student": {**students[0], "start_from": "a"}},
        *(
            {"teacher": endpoint, "student": students[4], "distill": fields}
            for fields in ({"method": "live"}, {"teacher_bits": 8}, {"corpus": "teacher"})
        ),
        {"teacher": endpoint, "student": students[4], "distill": {"temperature": 2}},
        {"latency": {"workload": "chat", "prompt_tokens": 3}},
        {"latency": {"concurrency": [2, 1]}},
        {"students": []},
        {"students": students[:1] * 2},
        {"students": students[:1], "control": True},
        {"students": students[:1], "teacher": "llamacpp:a.gguf"},
        {"student": {"kind": "width"}},
        {"student": {"kind": "odd"}},
        {"student": {**students[3], "num_parameters": 5}},
        {"run": {"student": students[0]}, "variants": [{}]},
        {"run": {"student": students[0], "distill": {}}, "variants": [{"latency": {}}]},
        {"run": {"student": students[0], "distill": {}}, "variants": [{"distill": {"seed": 1}}]},
        {"run": {"student": students[0], "distill": {}}, "variants": [{"student": {"x": 1}}]},
    ]
    texts.append(b"# a run\nbase: &b {tasks: [x]}\n")
    texts.append(
        b"teacher: starter\nlatency: null\ncapability: {<<: {limit: 3}, tasks: [a, 'b']}\n"
    )
    texts += [json.dumps(spec).encode() for spec in impossible]
    return [(f"{number}.yaml", text) for number, text in enumerate(texts)]


def _read_spec(name: str, content: bytes, folder: Path) -> None:
    path = folder / name
    path.write_bytes(content)
    for run in sweeps.runs_in(path)[:3]:
        again = RunSpec.from_yaml(run.to_yaml())
        assert again == run, "a spec is the same after it was written and read"
        assert again.run_id == run.run_id
        disk.run_folder(folder, run.run_id)


def _mutated_yaml(content: bytes, rng: Any) -> bytes:
    try:
        data = yaml_files.parse(content.decode(), "seed").data
    except (ExplorerError, UnicodeDecodeError):
        return mutations.mutated_bytes(content, rng)
    if not isinstance(data, dict):
        return content
    mutated = mutations.mutated_data(data, rng)
    if rng.random() < 0.5:
        return json.dumps(mutated).encode()  # JSON is YAML, too
    return yaml_files.dump(mutated).encode("utf-8", "surrogatepass")


def _spaced(content: bytes, rng: Any) -> bytes:
    """A change that means nothing: comments, blank lines, Windows' line ends, a mark."""
    how = rng.randrange(4)
    if how == 0:
        return content + b"\n\n# end\n"
    if how == 1:
        return b"# begin\n\n" + content
    if how == 2:
        return content.replace(b"\n", b"\r\n")
    return b"\xef\xbb\xbf" + content


# Corpora


@functools.cache
def _corpus_seeds() -> list[tuple[str, bytes]]:
    texts = [f"Document {n} says é, \u2028 and {n}." for n in range(6)]
    lines = "".join(
        json.dumps({"text": text, "id": 1}, ensure_ascii=False) + "\n" for text in texts
    )
    plain = "\n\n".join(texts)
    seeds = [
        ("a.txt", plain.encode()),
        ("b.txt", plain.encode("utf-16")),
        ("c.txt", plain.replace("\n", "\r\n").encode("utf-8-sig")),
        ("d.jsonl", lines.encode()),
        ("e.jsonl", lines.encode("utf-8-sig")),
        ("f.jsonl", b'{"messages": [{"role": "user"}]}\n'),
        ("g.jsonl", b'{"text": ["a"]}\n'),
        ("h.jsonl", json.dumps([{"text": text} for text in texts]).encode()),
        ("i.md", b"no corpus"),
        ("j.jsonl", b'{"text": "\\ud83d"}\n'),
        ("k.jsonl", b'{"text": 3}\n{"text": 4, "text": 5}\n'),
        ("l.jsonl", ('{"text": "' + "long text " * 600_000 + '"}\n').encode()),
    ]
    columns: list[Any] = [
        pa.array([*texts, None]),
        pa.array([text.encode() for text in texts]),
        pa.array([[text] for text in texts]),
        pa.array([b"\xff"]),
        pa.array([1, 2]),
        pa.array(texts).dictionary_encode(),
    ]
    for number, column in enumerate(columns):
        file = io.BytesIO()
        pq.write_table(pa.table({"text": column}), file)
        seeds.append((f"p{number}.parquet", file.getvalue()))
    for number, names in enumerate((["words"], ["text", "text"], [f"c{n}" for n in range(12)])):
        file = io.BytesIO()
        pq.write_table(pa.Table.from_arrays([pa.array(texts)] * len(names), names=names), file)
        seeds.append((f"q{number}.parquet", file.getvalue()))
    return seeds


def _read_corpus(name: str, content: bytes, folder: Path) -> None:
    path = folder / name
    path.write_bytes(content)
    # As the dashboard reads an upload: whole, and no longer than this.
    try:
        corpus.check_upload(str(path), 1000)
    except BadCorpus as error:
        if "unpacks to more than" not in str(error):
            raise
    corpus.check_corpus(str(path))
    text = corpus.read_corpus(str(path), 1000)
    documents = list(text.documents())
    assert len(documents) == text.num_documents > 0
    assert sum(map(len, documents)) == text.num_chars
    assert all(document.strip() and document.encode() for document in documents)
    assert not any(document.startswith("\ufeff") for document in documents)


# Question files


def _question_seeds() -> list[tuple[str, bytes]]:
    rows = ["question,A,B,C,answer", "One?,1,2,3,A", '"Two, ""or"" three?",x,y,z,C', "Four?,a,b,,B"]
    written = [{"question": f"{n} + {n}?", "answer": str(2 * n)} for n in range(3)]
    listed = [{"question": "Which?", "choices": ["a", "b", "c"], "answer": "c"}] * 3
    numbered = [{"question": "Which?", "choices": ["p", "q"], "answer": n % 2} for n in range(3)]
    table = "\n".join(rows) + "\n"
    seeds = [
        ("a.csv", table.encode()),
        ("b.csv", table.encode("utf-8-sig")),
        ("c.csv", table.replace(",", ";").encode()),
        ("d.tsv", table.replace(",", "\t").encode()),
        ("e.csv", b"sep=;\r\nquestion;answer\r\nWhat?;1,5\r\nWho?;me\r\n"),
        ("f.csv", b'question,answer\nWhat?,1\n"several\nlines",2\n'),
        ("g.csv", b"frage,wahl1,wahl2,loesung\nWas?,a,b,a\n"),
        ("h.csv", b"What is it?,a,b,A\nAnd this?,c,d,B\n"),
        ("i.csv", b"question,option_1,option_2,answer\nX,a,b,1\nY,c,d,2\nZ,e,f,0\n"),
        ("j.csv", b"question,a,b,answer\nX,p,q,A\nY,1,2,2\n"),
        ("k.xlsx", b"PK"),
    ]
    seeds += [
        (f"{name}.jsonl", "".join(json.dumps(row) + "\n" for row in data).encode())
        for name, data in (("l", written), ("m", listed), ("n", numbered))
    ]
    ambiguous = [{"question": "Which?", "choices": ["p", "q", "r"], "answer": n} for n in (1, 2)]
    odd = [
        {"question": "Which?", "choices": "p, q", "answer": "p"},
        {"question": None, "choices": [1, 2], "answer": True},
        {"question": "", "choices": ["p", ""], "answer": "p"},
        {"question": ["x"], "choices": ["p", "p"], "answer": "p"},
        {"question": "Which?", "choices": ["p", "q"]},
    ]
    seeds += [
        (f"{name}.jsonl", "".join(json.dumps(row) + "\n" for row in data).encode())
        for name, data in (("q", ambiguous), *((f"r{n}", [row]) for n, row in enumerate(odd)))
    ]
    seeds += [
        ("s.csv", b"question,question\na,b\n"),
        ("t.csv", b"question,answer\na,b,c\n"),
        ("u.csv", b'question,answer\n"a,b\n'),
        ("v.csv", b"question;answer\na;b,c\nd;e,f\n"),
        ("w.jsonl", b'{"question": "a", "answer": "b\\nc"}\n'),
        ("x.jsonl", b'{"question": " a", "choices": [" p", "q "], "answer": "q ", "id": 3}\n'),
        ("y.csv", b"question,answer\n"),
        ("z.csv", b"question,first,second,answer\nX,p,q,q\nY,1,2,1\n"),
        ("z2.csv", b"question,wrong_1,wrong_2,answer\nX,p,q,q\n"),
        ("z3.csv", b"question,answer\nX," + b"long " * 400 + b"\n"),
        ("z4.jsonl", b'{"question": "a", "answer": "\\ud83d"}\n'),
        ("z5.jsonl", b'{"question": "a", "things": ["p", "q"], "answer": "p"}\n'),
        ("z6.csv", b"sep=.\nquestion.answer\na.b\n"),
        ("z7.csv", b"question;answer\n"),
        ("z8.csv", b"question,a;answer\nx,b;c\n"),
    ]
    labelled = {"text": ["p", "q", "r"], "label": ["A", "B", "C"]}
    seeds += [
        (f"arc{number}.jsonl", json.dumps(row).encode() + b"\n")
        for number, row in enumerate(
            [
                {"question": "Which?", "choices": labelled, "answerKey": "B"},
                {"question": "Which?", "choices": labelled | {"label": ["A"]}, "answerKey": "A"},
                {"question": "Which?", "choices": labelled | {"label": [*"AAB"]}, "answerKey": "A"},
            ]
        )
    ]
    seeds.append(("o.jsonl", b'{"prompt": "a", "query": "b", "target": "c"}\n[1]\n'))
    return seeds


def _read_questions(name: str, content: bytes, folder: Path) -> None:
    path = folder / name
    path.write_bytes(content)
    rows = question_files.read_file(path)
    # As the dashboard reads an upload.
    assert question_files.rows_of(str(path), name, header=True) == [
        (row.line, row.cells) for row in rows
    ]
    guess = question_columns.guess_columns(name, rows)
    if guess.doubts:
        raise _Asked(" ".join(guess.doubts.values()))
    questions = custom.read_questions(name, rows, guess.columns)
    assert questions.in_words()
    for document in questions.documents:
        json.dumps(document).encode()
        if "choices" in document:
            assert 0 <= document["answer"] < len(document["choices"])
            assert all(choice.strip() for choice in document["choices"])
    custom.preview_questions(questions.documents)
    for changes in ({"question": "none"}, {"answer": questions.columns.question}, {"choices": ()}):
        wrong = questions.columns.model_copy(update={"way": "choices", **changes})
        with contextlib.suppress(ExplorerError):
            custom.read_questions(name, rows, wrong)


class _Asked(Exception):
    """The file is not understood without a doubt, so the person is asked."""


# lm-eval's output


@functools.cache
def _zip_seeds() -> list[tuple[str, bytes]]:
    document = {
        "results": {"a": {"alias": "a", "acc,none": 0.5, "acc_stderr,none": 0.25}},
        "configs": {
            "a": {"task": "a", "output_type": "multiple_choice", "metadata": {"version": 1}}
        },
        "versions": {"a": 1.0},
        "n-shot": {"a": 0},
        "n-samples": {"a": {"original": 2, "effective": 2}},
        "higher_is_better": {"a": {"acc": True}},
        "config": {"model": "hf", "model_args": "pretrained=org/m,dtype=float32", "limit": None},
        "date": 1_760_000_000.0,
        "model_name": "org/m",
        "lm_eval_version": "0.4.12",
        "total_evaluation_time_seconds": "3.5",
        "chat_template": None,
    }
    samples = [
        {
            "doc_id": n,
            "doc": {"question": f"{n}?", "choices": ["a", "b"]},
            "target": n,
            "arguments": [["q", " a"], ["q", " b"]],
            "resps": [[[-1.0, True]], [[-2.0, False]]],
            "filtered_resps": [[-1.0, True], [-2.0, False]],
            "filter": "none",
            "metrics": ["acc"],
            "acc": 1.0 - n,
            "doc_hash": "h",
            "prompt_hash": "p",
            "target_hash": "t",
        }
        for n in range(2)
    ]
    lines = "".join(json.dumps(sample) + "\n" for sample in samples)
    date = "2026-11-20T20-00-00.000001"
    old = {"results": {"a": {"acc,none": 0.5}}, "versions": {"a": 0}, "config": {"model": "hf"}}
    other = lines.replace('"acc": 1.0', '"acc": 0.0')
    array = ",".join(lines.splitlines())
    short = lines.splitlines(keepends=True)[0] + '{"doc_id": 1\n[]\n'
    group = {
        **document,
        "results": document["results"] | {"g": {"acc,none": 0.5, "alias": "g"}},
        "group_subtasks": {"g": ["a"], "a": []},
        "groups": {"g": {"acc,none": 0.5}},
    }
    seeds: list[tuple[str, bytes]] = []
    for number, files in enumerate(
        (
            {f"org__m/results_{date}.json": document, f"org__m/samples_a_{date}.jsonl": lines},
            {f"org__m\\results_{date}.json": document},
            {"results.json": old},
            {f"results_{date}.json": group, f"samples_a_{date}.jsonl": lines},
            {
                f"x/results_{date}.json": document,
                f"y/results_{date}.json": document | {"date": 1.0},
            },
            {
                f"x/results_{date}.json": document,
                "y/results_z.json": document | {"model_name": "n"},
            },
            {"readme.txt": "no results"},
            {f"results_{date}.json": document, f"samples_a_{date}.jsonl": other},
            {f"results_{date}.json": document, f"samples_a_{date}.jsonl": short},
            {f"results_{date}.json": document | {"date": "2026-11-20T20:00:00"}},
            {f"results_{date}.json": "{"},
            {f"results_{date}.json": document, f"samples_a_{date}.jsonl": lines + lines},
            {f"results_{date}.json": document, f"samples_a_{date}.jsonl": f"[{array}]"},
            {
                f"results_{date}.json": document,
                "x/results_2026-11-21T20-00-00.json": document | {"date": 1_770_000_000.0},
            },
            {
                "x/results_a.json": document,
                "y/results_b.json": document | {"results": {"b": {"acc,none": 0.5}}, "date": 1.0},
            },
            {
                f"x/results_{date}.json": document,
                f"y/results_{date}.json": {**document, "total_evaluation_time_seconds": "4"}
                | {"date": None},
            },
            *(
                {f"results_{date}.json": document, "bench.json": timed}
                for timed in (
                    aiperf(input_config={"endpoint": {"model_names": ["org/m"]}}),
                    aiperf(),
                    vllm(model_id="org/m"),
                )
            ),
        )
    ):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
            for name, content in files.items():
                text = content if isinstance(content, str) else json.dumps(content)
                archive.writestr(name, text)
        seeds.append((f"{number}.zip", packed.getvalue()))
    seeds.append((f"results_{date}.json", json.dumps(document).encode()))
    seeds.append(("results.csv", b"a,b\n"))
    return seeds


def _mutated_zip(content: bytes, rng: Any) -> bytes:
    """A zip with one of its files mutated, renamed, doubled or left out."""
    if not zipfile.is_zipfile(io.BytesIO(content)):
        return mutations.mutated_json(content, rng) if content[:1] == b"{" else content
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        files = [(info.filename, archive.read(info)) for info in archive.infolist()]
    place = rng.randrange(len(files))
    name, text = files[place]
    how = rng.randrange(8)
    if how == 0:
        name = rng.choice(("../" + name, "/abs/" + name, "C:\\" + name, name.upper(), "a.json"))
    elif how == 1:
        files.append((name, text))
    elif how == 2 and len(files) > 1:
        del files[rng.randrange(len(files))]
        place = 0
        name, text = files[0]
    elif name.endswith(".jsonl"):
        text = mutations.mutated(text, (mutations.mutated_json_lines,) * 3, rng)
    elif name.endswith(".json"):
        known = (mutations.mutated_json,) * 6 if text != b"{" else ()
        text = mutations.mutated(text, known, rng)
    files[place] = (name, text)
    packed = io.BytesIO()
    kind = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with warnings.catch_warnings(), zipfile.ZipFile(packed, "w", kind) as archive:
        warnings.simplefilter("ignore")  # of a name that is there twice
        for file, data in dict(files).items() if rng.random() < 0.5 else files:
            archive.writestr(zipfile.ZipInfo(file), data)
    return packed.getvalue()


def _read_zip(name: str, content: bytes, folder: Path) -> None:
    store = folder / "store"
    with upload.unpacked([(name, io.BytesIO(content))]) as unpacked:
        run_id, problems = import_run.import_folder(store, unpacked, "fuzzed")
        student, _ = import_run.import_folder(store, unpacked, "student", run_id)
        for path in [*sorted(unpacked.rglob("*.json"))[:1], unpacked / "nowhere"]:
            with contextlib.suppress(ExplorerError):
                results.read_output_folder(path)
    assert all(problem.strip() for problem in problems)
    imported = disk.load(store, run_id)
    assert imported.capability is not None
    assert imported.capability.scores
    disk.load_answers(store, run_id)
    assert [path.name for path in folder.iterdir()] == ["store"], "nothing beside the store"
    shutil.rmtree(store)


# Records and states


def _record_seeds() -> list[tuple[str, bytes]]:
    written = [
        (path.name, path.read_bytes()) for path in sorted((GOLDEN / "records").glob("*.json"))
    ]
    made = [
        records.make_record(spec=spec, status=status)
        for spec, status in zip(records.study("fuzz")[:2], ("finished", "cancelled"), strict=True)
    ]
    newer = {"schema_version": 99, "run_id": "a"}
    return [
        *written,
        *((f"{n}.json", one.to_json().encode()) for n, one in enumerate(made)),
        ("newer.json", json.dumps(newer).encode()),
        ("nothing.json", b"[]"),
        ("infinite.json", b'{"schema_version": 1e999}'),
    ]


def _read_record(name: str, content: bytes, folder: Path) -> None:
    path = disk.run_folder(folder, RUN_ID) / disk.RECORD
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    run_states.read_record_row(path.parent)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        disk.load(folder, RUN_ID)
        raise AssertionError("what is not UTF-8 is refused") from None
    run = RunRecord.from_json(text, str(path))
    disk.run_folder(folder, run.run_id)
    assert RunRecord.from_json(run.to_json()) == run
    path.parent.rename(path.parent.with_name(run.run_id))
    try:
        assert disk.load(folder, run.run_id) == run
    finally:
        path.parent.with_name(run.run_id).rename(path.parent)


def _status_seeds() -> list[tuple[str, bytes]]:
    base_row = {
        "run_id": RUN_ID,
        "state": "running",
        "stage": "distil",
        "done": 3,
        "total": 10,
        "unit": "steps",
        "seconds_left": 4.5,
        "losses": [2.0, 1.5],
        "updated_at": 1_760_000_000.0,
        "pid": 1,
        "host": "here",
        "error": None,
    }
    rows = [
        base_row,
        {"state": "queued", "queued_at": 1_760_000_000.0},
        {"state": "failed", "error": "It broke.", "updated_at": 1_760_000_000.0},
        {"state": "finished", "updated_at": 1.0},
        {"state": "cancelled", "error": "Stopped.", "updated_at": 2.0},
        {"state": "interrupted", "updated_at": None},
    ]
    return [(f"{number}.json", json.dumps(row).encode()) for number, row in enumerate(rows)]


def _read_status(name: str, content: bytes, folder: Path) -> None:
    run = folder / RUN_ID
    run.mkdir(exist_ok=True)
    (run / disk.STATUS).write_bytes(content)
    if not (run / disk.RECORD).exists():
        (run / disk.RECORD).write_bytes(_record_seeds()[0][1])
    disk.read_status(folder, RUN_ID)
    row = run_states.read_status_row(run)
    run_states.read_state(folder, RUN_ID)
    if row is None:
        raise _Ignored("a damaged status counts as none")
    assert row["state"] in run_states.STATES
    assert isinstance(row["updated_at"], float)
    assert math.isfinite(row["updated_at"])
    # As the Run page uses them.
    assert (row["done"] or 0) / (row["total"] or 1) < math.inf
    assert sum(row["losses"] or []) < math.inf
    assert f"{row['stage']}{row['error']}{row['unit']}".encode()


class _Ignored(Exception):
    """A damaged file counts as none."""


# Streams


def _stream_seeds() -> list[tuple[str, bytes]]:
    usage = {"prompt_tokens": 5, "completion_tokens": 3}

    def event(data: Any, kind: str = "") -> str:
        return (f"event: {kind}\n" if kind else "") + f"data: {json.dumps(data)}\n\n"

    def delta(**parts: Any) -> str:
        return event({"choices": [{"index": 0, "delta": parts}]})

    def text(part: str) -> str:
        return event({"choices": [{"text": part}]})

    end = event({"choices": [], "usage": usage})
    thinking = usage | {"completion_tokens_details": {"reasoning_tokens": 2}}
    streams = [
        text("a") + text("b") + text("c") + end + "data: [DONE]\n\n",
        delta(role="assistant") + delta(content="a") * 3 + end,
        delta(reasoning="a") * 2 + delta(content="b") + event({"choices": [], "usage": thinking}),
        delta(reasoning_details=[{"type": "t", "text": "a"}]) * 3 + end + "data: [DONE]",
        delta(content=[{"type": "text", "text": "a"}]) * 3 + end,
        ": ping\r\n\r\n" + (delta(content="a") * 3 + end).replace("\n", "\r\n"),
        event({}, "ping") + delta(content="a") * 3 + end,
        "\ufeff" + delta(content="a") * 3 + end,
        delta(content="a") * 2
        + event(
            {"choices": [{"delta": {"content": "c"}, "finish_reason": "stop"}], "usage": usage}
        ),
        delta(content="a") + event({"error": {"message": "out of memory"}}, "error"),
        delta(content="a") + event({"error": "bad"}),
        delta(content="a") * 3 + event({"choices": [], "usage": thinking}),
        "data: {not json\n\n",
        "data: [1]\n\n" + end,
        event({"choices": 3}) + event({"choices": [3]}),
        event({"choices": [{"delta": 3}]}),
        delta(content="a") * 9 + end,
        delta(content="a") * 12,
        end,
        delta(content="a") + event({"choices": []}),
        delta(content="a") * 3 + event({"choices": [], "usage": usage | {"completion_tokens": 99}}),
        delta(content="a") * 3 + event({"choices": [], "usage": {"prompt_tokens": 1}}),
        delta(tool_calls=[{"function": {"arguments": "{"}}]) * 3 + end,
    ]
    return [(f"{number}.txt", stream.encode()) for number, stream in enumerate(streams)]


class _Response:
    """A response whose text comes in pieces."""

    request = None
    headers: dict[str, str] = {}

    def __init__(self, text: str) -> None:
        self.text = text

    async def aiter_text(self) -> Any:
        for start in range(0, len(self.text), 97):
            yield self.text[start : start + 97]


def _read_stream(name: str, content: bytes, folder: Path) -> None:
    answer = endpoint_stream._StreamedAnswer(4)
    response: Any = endpoint_stream._Ended(_Response(content.decode(errors="replace")))  # type: ignore[arg-type]

    async def read() -> None:
        now = 1.0
        async for event in httpx2.EventSource(response):
            now += 1.0
            if not answer.add_event(event, now):
                break

    asyncio.run(read())
    turn = answer.turn(0.5)
    assert turn.num_output_tokens >= 0
    assert 0 <= turn.ttft_ms <= turn.latency_ms
    _ = turn.tpot_ms


# GGUF


@functools.cache
def _gguf_seeds() -> list[tuple[str, bytes]]:
    import tempfile

    seeds = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(5):
            path = Path(folder) / "a.gguf"
            writer = gguf.GGUFWriter(path, "llama")
            writer.add_block_count(2)
            writer.add_embedding_length(8)
            writer.add_context_length(64)
            writer.add_head_count(2)
            writer.add_file_type(1)
            writer.add_array("tokenizer.ggml.tokens", ["a", "b", "c"])
            writer.add_array("tokenizer.ggml.scores", [0.5, 1.5])
            writer.add_array("nested", [[1, 2], [3]])
            if number == 1:
                writer.add_uint32("split.count", 1)
                writer.add_bool("a.bool", True)
                writer.add_float64("a.float", 0.5)
            if number >= 2:
                writer.add_uint16("split.count", 3)
                writer.add_uint16("split.no", number - 2)
            writer.add_tensor(f"blk.{number}.attn_k.weight", np.zeros((3, 8), np.float32))
            writer.add_tensor(f"blk.{number}.attn_q.weight", np.zeros((8, 8), np.float16))
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
            writer.close()
            seeds.append((f"{number}.gguf", path.read_bytes()))
    parts = [content for _, content in seeds[2:]]
    whole, copies = PART_END.join(parts), PART_END.join(parts[:1] * 3)
    first = "a-00001-of-00003.gguf"
    return [
        *seeds[:3],
        ("d.gguf", b"GGUF"),
        *((first, content) for content in (whole, whole, copies, parts[0])),
        ("a-00002-of-00003.gguf", whole),
    ]


PART_END = b"<part>"


def _mutated_header(content: bytes, rng: Any) -> bytes:
    """Bytes changed in the values and tensors' places, which are before the weights."""
    data = bytearray(content)
    start = rng.choice((0, max(0, content.rfind(b"GGUF"))))
    place = min(start + rng.randrange(700), len(data) - 1)
    data[place] = rng.choice((0, 1, 255, data[place] ^ (1 << rng.randrange(8))))
    return bytes(data)


def _read_gguf(name: str, content: bytes, folder: Path) -> None:
    path = folder / name
    for number, part in enumerate(content.split(PART_END), start=1):
        place = folder / f"a-0000{number}-of-00003.gguf" if "-of-" in name else path
        place.write_bytes(part)
    if "-of-" in name and PART_END not in content:
        (folder / "a-00003-of-00003.gguf").unlink(missing_ok=True)
    sizes.read_sizes(f"gguf:{path}")
    files = gguf_files.read_files(path)
    assert all(all(axis >= 0 for axis in shape) for shape in files.shapes.values())
    assert files.num_bytes >= path.stat().st_size
    header.count_parameters(files.shapes)


# Prices


def _price_seeds() -> list[tuple[str, bytes]]:
    return [
        ("prices.yaml", b"NVIDIA H100: 2.5\nbox: {usd_per_hour: 0.05, provider: own}\n"),
        ("prices.yaml", b"box: {usd_per_hour: $1.25, date_seen: 2026-11-24, source: 'a bill'}\n"),
        ("prices.yaml", b"# none yet\n"),
        ("prices.yaml", b"- 3\n"),
        ("api_prices.yaml", b"acme/free: {input_usd_per_mtok: 0, output_usd_per_mtok: '0.00'}\n"),
        (
            "api_prices.yaml",
            b"acme/m:\n  input_usd_per_mtok: 0.10\n  output_usd_per_mtok: $2\n"
            b"  date_seen: 2026-11-24\n  source: https://acme.example\n",
        ),
        ("api_prices.yaml", b""),
        ("api_prices.yaml", b"m: 3\n"),
        ("api_prices.yaml", b"[]\n"),
    ]


def _read_prices(name: str, content: bytes, folder: Path) -> None:
    path = folder / name
    path.write_bytes(content)
    if name == prices.OVERRIDES:
        for price in prices.read_overrides(path).values():
            assert math.isfinite(price.usd_per_hour)
            assert price.usd_per_hour > 0
            assert price.in_words() is not None
        prices.write_override(path, "another box", prices.typed_price("1", "typed"))
        assert "another box" in prices.read_overrides(path)
        return
    for own in api_prices.read_overrides(path):
        assert math.isfinite(own.input_usd_per_mtok)
        assert own.input_usd_per_mtok >= 0
        assert math.isfinite(own.output_usd_per_mtok)
        assert own.output_usd_per_mtok >= 0
        assert own.in_words()


# A page's address


def _query_seeds() -> list[tuple[str, bytes]]:
    texts = [
        "",
        "run=fuzz-teacher-1",
        "student=fuzz-10l-abc&reference=fuzz",
        "run=fuzz&run=fuzz-10l&x=tpot_ms",
        "test_with=starter&test_with=arc_easy&more_tasks=mine",
        "test_with=hellaswag&more_tasks=/etc",
        "picked=fuzz-10l-abc",
    ]
    return [(f"{number}.txt", text.encode()) for number, text in enumerate(texts)]


class _Params(dict[str, Any]):
    def get(self, key: str, default: Any = None) -> Any:
        return self[key][-1] if key in self else default

    def get_all(self, key: str) -> list[str]:
        value = super().get(key, [])
        return value if isinstance(value, list) else [value]


class _Rerun(Exception):
    """The page is drawn again."""


def _page(params: _Params) -> Any:
    """What the functions use of Streamlit."""
    state: dict[str, Any] = {}

    def rerun() -> None:
        raise _Rerun

    page = types.SimpleNamespace(query_params=params, session_state=state, rerun=rerun)
    page.columns = lambda widths: (page, page)
    page.multiselect = lambda label, options, key, **rest: state[key]
    page.number_input = lambda label, key, **rest: None
    page.selectbox = lambda label, options, key, **rest: state.get(key)
    page.warning = lambda text, **rest: None
    return page


def _read_query(name: str, content: bytes, folder: Path) -> None:
    text = content.decode("utf-8", "replace")
    params = _Params(urllib.parse.parse_qs(text, keep_blank_values=True))
    known = ["fuzz-teacher-12345678", "fuzz-10l-abcdef01", "fuzz-10l-abcdef02"]
    runs_frame = pd.DataFrame({"run_id": known})
    page = _page(params)
    configured = {"mine": Path("/data/tasks")}
    snapshot: Any = types.SimpleNamespace(
        runs=runs_frame, hidden=frozenset(known[:1]), tasks=("starter",)
    )
    before = widgets.st, evaluation_form.st, evaluation_form.user_config
    widgets.st = evaluation_form.st = page
    evaluation_form.user_config = types.SimpleNamespace(task_folders=lambda: configured)  # type: ignore[assignment]
    try:
        for _ in range(4):
            try:
                widgets.expand_run_ids(known, "run", "student", "reference")
                break
            except _Rerun:
                continue
        else:
            raise AssertionError("the page is drawn again for ever")
        assert set(known[1:]) <= set(widgets.visible_runs(snapshot)["run_id"])
        picked = widgets.picked_run()
        chosen = evaluation_form.tasks_and_limit(snapshot)
        chosen_folder = evaluation_form.task_folder()
    finally:
        widgets.st, evaluation_form.st, evaluation_form.user_config = before
    assert chosen_folder in ("", "/data/tasks"), "an address names no folder of its own"
    CapabilitySpec.parse({"tasks": chosen["tasks"]})
    for run_id in [picked, *params.get_all("run")]:
        if run_id:
            disk.resolve_id(run_id, known, "runs", "There is no such run.", "See the list.")


def _validators(*specs: type) -> tuple[Any, ...]:
    """The functions of specs that check values."""
    return tuple(
        member
        for spec in specs
        for name, member in vars(spec).items()
        if name.startswith(("_refuse", "_take", "_fill"))
    )


REFUSED = (ExplorerError,)

READERS = {
    reader.name: reader
    for reader in (
        Reader(
            "spec",
            _spec_seeds,
            _read_spec,
            REFUSED,
            (
                yaml_files,
                base,
                sweeps.read_run_or_sweep,
                sweeps.runs_in,
                sweeps._largest_first,
                search.TuneSpec,
                search._merged,
                search._in_words,
                runs.refuse_without_weights,
                runs._refuse_without_local_start,
                runs._refuse_training_without_weights,
                *_validators(runs.RunSpec, sweeps.SweepSpec, distill.DistillSpec),
                *_validators(evaluation.LatencySpec),
            ),
            (_mutated_yaml, _mutated_yaml, _spaced),
            frozenset({"with_", "default", "tune_id", "survivors", "refuse_twins", "refuse_deep"}),
        ),
        Reader(
            "corpus",
            _corpus_seeds,
            _read_corpus,
            REFUSED,
            (corpus, text_files),
            (_spaced,),
            frozenset({"facts", "split_heldout", "_generator", "decode", "parse_json"}),
        ),
        Reader(
            "question file",
            _question_seeds,
            _read_questions,
            (*REFUSED, _Asked),
            (
                question_files,
                question_columns,
                answer_keys,
                custom.read_questions,
                custom._written,
                custom._asked,
                custom._text,
                custom._list,
                custom.Questions,
            ),
            (_spaced,),
        ),
        Reader(
            "results zip",
            _zip_seeds,
            _read_zip,
            REFUSED,
            (upload, results, evaluations, import_run),
            (_mutated_zip, _mutated_zip, _mutated_zip),
            frozenset({"read_results_files", "_total_seconds"}),
            folder_matters=True,
        ),
        Reader(
            "record",
            _record_seeds,
            _read_record,
            REFUSED,
            (
                migrations,
                record.RunRecord.from_json,
                record._refuse_constant,
                record._finite,
                disk.load,
            ),
            (mutations.mutated_json, mutations.mutated_json, _spaced),
        ),
        Reader(
            "status",
            _status_seeds,
            _read_status,
            (*REFUSED, _Ignored),
            (run_states, disk.read_status),
            (mutations.mutated_json,),
        ),
        Reader(
            "stream events",
            _stream_seeds,
            _read_stream,
            (RequestFailed,),
            (
                endpoint_stream._StreamedAnswer,
                endpoint_stream._Ended,
                endpoint_stream.output_tokens,
                endpoint_stream._reasoning_tokens,
                endpoint_stream._has_text,
                endpoint_stream._holds_text,
                endpoint_stream._has_thoughts,
                endpoint_errors.message_in,
            ),
            (),
        ),
        Reader(
            "GGUF header",
            _gguf_seeds,
            _read_gguf,
            REFUSED,
            (header, gguf_files, sizes._gguf_sizes),
            (_mutated_header, _mutated_header),
        ),
        Reader(
            "price file",
            _price_seeds,
            _read_prices,
            REFUSED,
            (
                prices.read_overrides,
                prices.Price,
                prices.typed_price,
                api_prices.read_overrides,
                api_prices.ApiPrice._dollars,
                api_prices.ApiPrice.in_words,
                api_prices._own,
            ),
            (_mutated_yaml, _spaced),
        ),
        Reader(
            "query parameters",
            _query_seeds,
            _read_query,
            REFUSED,
            (
                widgets.expand_run_ids,
                widgets._expanded,
                widgets.visible_runs,
                widgets.picked_run,
                evaluation_form,
                disk.resolve_id,
            ),
        ),
    )
}
"""By name."""
