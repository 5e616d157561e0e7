"""What is wrong with an order is found before it computes anything, and only once."""

import json
import shutil
import sys
import threading

import pytest
import torch

from explorer import cli, pipeline, specs
from explorer.devices import accelerator, memory, nvml, torch_build
from explorer.distill import distributed
from explorer.errors import BadCorpus, BadInput, ExplorerError
from explorer.pages.shared import findings
from explorer.pipeline import device_checks, forecast, preflight, preflight_server, spec_checks
from explorer.processes import cli_subprocess
from explorer.specs import RunSpec, SweepSpec
from explorer.store import disk
from explorer.tasks import task_loading


def fields(specs, root, level="full"):
    """Severity and field of each finding."""
    return [(one.severity, one.field) for one in preflight.findings(specs, root, level)]


def messages(changes, tiny_run, root, level="full"):
    """What is found wrong with the tiny run after these changes, as one text."""
    data = tiny_run | {
        key: tiny_run[key] | value if isinstance(value, dict) and tiny_run.get(key) else value
        for key, value in changes.items()
    }
    found = preflight.findings([RunSpec.parse(data)], root, level)
    return "\n".join(one.in_words() for one in found if one.error)


def test_a_good_order_has_no_error(tiny_run, store_root):
    """Nothing is written, either."""
    assert messages({}, tiny_run, store_root) == ""
    assert not list(store_root.iterdir())


def test_a_run_that_is_finished_is_not_looked_at(tiny_run, store_root, corpus_file):
    """A sweep that only needs its table may lack what its runs needed."""
    spec = RunSpec.parse(tiny_run)
    pipeline.run(spec, store_root)
    corpus_file.unlink()

    assert preflight.findings([spec], store_root) == []
    disk.request_remeasure(store_root, spec.run_id)
    assert ("error", "distill.corpus") in fields([spec], store_root)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"teacher": "/no/such/folder"}, "(teacher): There is no folder '/no/such/folder'"),
        ({"teacher": "llamacpp:/no.gguf", "student": None, "distill": None}, "No GGUF file at"),
        ({"student": {"num_layers": 9}}, "(student): 9 layers requested, but the teacher"),
        ({"student": {"start_from": "run:none-12345678"}}, "(student): The weights of the run"),
        (
            {"student": {"kind": "width", "num_layers": None, "num_attention_heads": 3}},
            "(student): ",
        ),
        ({"student": {"kind": "fresh"}}, "train_embeddings: true"),
        ({"device": "cuda:9"}, "(device): The spec has device cuda:9"),
        ({"device": "tpu"}, "(device): The spec has device tpu, which torch does not know"),
        ({"device": "cpu:1"}, "(device): The spec has device cpu:1, but there is one CPU"),
        ({"distill": {"corpus": "/no/corpus.txt"}}, "There is no corpus file /no/corpus.txt"),
        ({"distill": {"corpus": "text.md"}}, "(distill.corpus): A corpus is"),
        ({"distill": {"top_k": 320}}, "must be below the 320 tokens"),
        ({"latency": {"prompt_tokens": 500, "output_tokens": 500}}, "the context of"),
        ({"latency": {"request_rates": [1.0]}}, "(latency): latency.request_rates"),
        ({"capability": {"tasks": ["tiny_pairs"], "include_path": "/no/folder"}}, "/no/folder"),
    ],
)
def test_each_kind_of_mistake_is_found_while_typing(changes, says, tiny_run, store_root):
    """From files on this machine alone; the key of the spec is named."""
    if (changes.get("student") or {}).get("kind"):
        tiny_run["student"] = {}
    if (changes.get("student") or {}).get("num_layers", 1) is None:
        del changes["student"]["num_layers"]
    assert says in messages(changes, tiny_run, store_root, "quick")


def test_a_folder_without_a_tokenizer_is_found_at_the_start(tiny_run, store_root, tmp_path):
    """It would be missed after the teacher's weights were loaded."""
    copy = tmp_path / "copy"
    shutil.copytree(tiny_run["teacher"], copy)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (copy / name).unlink()

    assert "Could not load the tokenizer" in messages({"teacher": str(copy)}, tiny_run, store_root)


def test_a_corpus_is_read_at_the_start(tiny_run, store_root, tmp_path):
    """Whether it is text, and whether there is enough of it."""
    (tmp_path / "short.txt").write_text("Short.")
    (tmp_path / "bad.jsonl").write_text('{"text": "good"}\n{"words": "bad"}\n')

    for name, says in (("short.txt", "this run needs at least"), ("bad.jsonl", "line 2")):
        corpus = {"distill": {"corpus": str(tmp_path / name)}}
        assert says in messages(corpus, tiny_run, store_root)


def test_a_task_that_cannot_load_is_found_at_the_start(tiny_run, store_root, tmp_path):
    """As its data is damaged."""
    (tmp_path / "broken.jsonl").write_text("{nothing\n")
    (tmp_path / "broken.yaml").write_text(
        "task: broken\ndataset_path: json\noutput_type: generate_until\ntest_split: test\n"
        f"dataset_kwargs:\n  data_files: {{test: {tmp_path / 'broken.jsonl'}}}\n"
    )
    capability = {"capability": {"tasks": ["broken"], "include_path": str(tmp_path)}}

    assert "the task broken could not be read" in messages(capability, tiny_run, store_root)


def test_tasks_are_loaded_once_for_the_check_and_the_evaluation(tiny_run, store_root, monkeypatch):
    """lm-eval takes minutes for large suites; a task file that has changed since is read again."""
    loaded, load = [], task_loading.load_tasks
    monkeypatch.setattr(
        task_loading, "load_tasks", lambda *names: loaded.append(names) or load(*names)
    )
    spec = RunSpec.parse(
        {key: tiny_run[key] for key in ("teacher", "capability")} | {"latency": None}
    )

    pipeline.run(spec, store_root)
    assert len(loaded) == 1

    asked = (spec.capability.tasks, spec.capability.include_path)
    checked = task_loading.load_to_check(*asked)
    assert task_loading.take_checked(*asked) is checked
    assert task_loading.take_checked(*asked) is not checked, "an evaluation changes its tasks"


def test_what_runs_share_is_said_once(tiny_run, store_root):
    """A sweep of two students with one missing corpus has one error; a large cut is a warning."""
    data = {key: tiny_run[key] for key in ("teacher", "distill", "capability", "latency")}
    data["distill"] |= {"corpus": "/no/corpus.txt"}
    sweep = SweepSpec.parse(data | {"students": [{"num_layers": 3}, {"num_layers": 1}]})

    found = fields(sweep.runs(), store_root)
    assert found == [("error", "distill.corpus"), ("warning", "student")]
    with pytest.raises(BadCorpus, match=r"^There is no corpus file /no/corpus\.txt\.$"):
        preflight.refuse(sweep.runs(), store_root)


def test_several_errors_are_said_together(tiny_run, store_root):
    """So that nobody has to try once for each."""
    tiny_run["distill"] |= {"corpus": "/no/corpus.txt"}
    spec = RunSpec.parse(tiny_run | {"teacher": "/no/teacher"})

    with pytest.raises(ExplorerError) as refused:
        preflight.refuse([spec], store_root)

    assert "/no/teacher" in str(refused.value)
    assert "/no/corpus.txt" in str(refused.value)


def test_nothing_is_computed_before_the_start_is_refused(tiny_run, store_root):
    """The teacher of a student whose corpus is missing is not measured, and has no folder."""
    tiny_run["distill"] |= {"corpus": "/no/corpus.txt"}
    spec = RunSpec.parse(tiny_run)

    with pytest.raises(BadCorpus):
        pipeline.run(spec, store_root)
    assert disk.run_ids(store_root) == [spec.run_id]


def test_the_command_prints_the_list(tiny_run, store_root, tmp_path, monkeypatch, capsys):
    """Of a run, a sweep or a tournament; as JSON for the page; with the exit code of the error."""
    good = specs.RunSpec.parse(tiny_run)
    tiny_run["distill"]["corpus"] = "/no/corpus.txt"
    bad = specs.RunSpec.parse(tiny_run)
    tune = {"run": bad.model_dump(), "variants": [{"distill": {"learning_rate": 1e-5}}]}
    orders = {"good": good, "bad": bad, "tune": specs.TuneSpec.parse(tune)}
    for name, spec in orders.items():
        (tmp_path / f"{name}.yaml").write_text(spec.to_yaml())

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["explorer", "check", *arguments])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        return stopped.value.code, *capsys.readouterr()

    assert call(str(tmp_path / "good.yaml"))[:2] == (0, "Nothing is wrong with it.\n")
    for name in ("bad", "tune"):
        code, out, err = call(str(tmp_path / f"{name}.yaml"))
        assert (code, err) == (2, "error: There is no corpus file /no/corpus.txt.\n")
        assert out == "error (distill.corpus): There is no corpus file /no/corpus.txt.\n"
    code, out, _ = call(str(tmp_path / "bad.yaml"), "--json", "--quick")
    assert (code, json.loads(out)) == (
        0,
        [
            {
                "severity": "error",
                "field": "distill.corpus",
                "message": "There is no corpus file /no/corpus.txt.",
            }
        ],
    )


def test_a_search_is_refused_before_its_first_round(tiny_run, store_root):
    """A variant that is possible as a spec may still be impossible for this teacher."""
    tune = specs.TuneSpec.parse(
        {"run": RunSpec.parse(tiny_run), "variants": [{"student": {"num_layers": 9}}]}
    )

    with pytest.raises(BadInput, match="Choose fewer than 4"):
        preflight.refuse(tune.last_round(), store_root)


def test_a_process_of_its_own_answers_the_page(tiny_run, store_root):
    """The first answer loads the libraries; it stays for the next one, and ends when closed."""
    tiny_run["distill"] |= {"corpus": "/no/corpus.txt"}
    request = {
        "runs": [RunSpec.parse(tiny_run).model_dump(mode="json")],
        "level": "quick",
        "place": "queue",
    }
    worker = cli_subprocess.Worker("explorer.pipeline.preflight_server", HF_HUB_OFFLINE="1")
    try:
        answers = [worker.ask(request | {"root": str(store_root)}, timeout_s=200) for _ in "12"]
        process = worker._process
    finally:
        worker.close()

    assert process.returncode == 0
    assert answers[0] == answers[1] == preflight_server.answer(request | {"root": str(store_root)})
    assert [one["field"] for one in answers[0]["findings"]] == ["distill.corpus"]
    assert answers[0]["memory_bytes"] > 0


def test_the_process_can_start_before_the_first_request(monkeypatch):
    """A dashboard that may start runs loads the libraries of the checks once, before the form."""
    worker = cli_subprocess.Worker("explorer.errors")
    started = threading.Event()
    monkeypatch.setattr(findings, "_quick", worker)
    monkeypatch.setattr(findings, "START_AFTER_S", 0.0)
    monkeypatch.setattr(worker, "_running", started.set)
    findings.start_soon.cache_clear()

    findings.start_soon()
    arrived = started.wait(60)
    started.clear()
    findings.start_soon()
    again = started.wait(0.2)

    findings.start_soon.cache_clear()
    assert (arrived, again) == (True, False)


def test_a_process_that_ends_is_said_in_words():
    """The next request starts another."""
    worker = cli_subprocess.Worker("explorer.errors")

    with pytest.raises(ExplorerError, match="ended without an answer"):
        worker.ask({}, timeout_s=60)
    worker.close()


def test_what_another_machine_may_have_is_only_a_warning(tiny_run, store_root, monkeypatch):
    """A key in the queue's environment, a GPU in the cluster; and everywhere a corpus is needed."""
    monkeypatch.setattr(preflight.disk, "is_finished", lambda root, run_id: False)
    served = {"teacher": "endpoint:https://api.openai.com/v1#m", "latency": None}
    served |= {"capability": {"tasks": ["starter_facts"], "apply_chat_template": True}}
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    on_gpu = RunSpec.parse(tiny_run | {"device": "cuda:7"})

    for spec, field, warned in (
        (RunSpec.parse(served), "capability.api", {"queue", "cluster"}),
        (on_gpu, "device", {"cluster"}),
    ):
        for place in ("here", "queue", "cluster"):
            found = preflight.findings([spec], store_root, "quick", place)
            severity = "warning" if place in warned else "error"
            assert [(one.severity, one.field) for one in found] == [(severity, field)]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("half.jsonl", b'{"text": "a"}\n{"text": "b \\ud83d"}\n', "line 2: expected whole"),
        ("latin.txt", "caf\xe9".encode("latin-1"), "latin.txt"),
        ("chats.jsonl", b'{"text": [{"role": "user"}]}\n', 'string "text"'),
        ("array.jsonl", b'[{"text": "a"}]', "one JSON array"),
        ("text.parquet", b"PAR1", "is not a Parquet file"),
    ],
)
def test_text_that_cannot_train_is_found(name, content, says, tiny_run, store_root, tmp_path):
    """In the words of the reader, with the file and the line."""
    (tmp_path / name).write_bytes(content)
    found = messages({"distill": {"corpus": str(tmp_path / name)}}, tiny_run, store_root)

    assert says in found
    assert found.startswith("error (distill.corpus): ")


def test_a_model_that_is_not_whole_is_found_while_typing(tiny_run, store_root, tmp_path):
    """Weights that its configuration describes and no file has; blocks beyond its positions."""
    from safetensors.torch import load_file, save_file

    copy = tmp_path / "holes"
    shutil.copytree(tiny_run["teacher"], copy)
    weights = load_file(copy / "model.safetensors")
    del weights["model.layers.2.mlp.up_proj.weight"]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})

    found = messages({"teacher": str(copy)}, tiny_run, store_root, "quick")
    assert "model.layers.2.mlp.up_proj.weight" in found
    found = messages({"distill": {"block_tokens": 1024}}, tiny_run, store_root, "quick")
    assert "block_tokens is 1,024, but" in found


def test_a_question_with_an_empty_choice_is_found(tiny_run, store_root, tmp_path):
    """lm-eval would stop in the middle of the evaluation."""
    rows = [{"q": "One?", "c": ["a", "b"], "a": 0}, {"q": "Two?", "c": ["", "b"], "a": 1}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "marks.yaml").write_text(
        "task: marks\ndataset_path: json\noutput_type: multiple_choice\ntest_split: test\n"
        f"dataset_kwargs:\n  data_files: {{test: {tmp_path / 'rows.jsonl'}}}\n"
        'doc_to_text: "{{q}}"\ndoc_to_choice: "{{c}}"\ndoc_to_target: a\n'
        "metric_list:\n- metric: acc\n"
    )
    changes = {"capability": {"tasks": ["marks"], "include_path": str(tmp_path)}}

    assert "The task marks can't be evaluated: document 1 has an empty choice" in messages(
        changes, tiny_run, store_root
    )


@pytest.fixture
def busy_gpu(monkeypatch):
    """A GPU of 10 GB on which other programs hold the memory and compute."""

    def make(*, free_gb, num_others):
        device = torch.device("cuda")
        for module in (device_checks, forecast):
            monkeypatch.setattr(module, "pick_device", lambda name: device)
        monkeypatch.setattr(accelerator, "multiplies_in_bfloat16", lambda device: True)
        monkeypatch.setattr(memory, "free_bytes", lambda device: free_gb * 10**9)
        monkeypatch.setattr(memory, "total_bytes", lambda device: 10 * 10**9)
        monkeypatch.setattr(memory, "own_bytes", lambda device: 0)
        monkeypatch.setattr(nvml, "num_other_processes", lambda device: num_others)

    return make


def test_a_busy_device_is_said_before_the_run(busy_gpu, tiny_run, store_root):
    """Two runs forced on one device: allowed, slower, and their times are marked."""
    busy_gpu(free_gb=9, num_others=1)
    found = preflight.findings([RunSpec.parse(tiny_run | {"device": "cuda"})], store_root, "quick")

    assert [finding.severity for finding in found if finding.field == "device"] == ["warning"]
    assert "Another program computes on" in found[0].message
    assert "marked as one on a busy machine" in found[0].message


def test_a_device_whose_memory_others_hold_is_refused(busy_gpu, tiny_run, store_root, monkeypatch):
    """With what the run needs, what is free, and what to do; --insist starts it anyway."""
    busy_gpu(free_gb=0, num_others=2)
    spec = RunSpec.parse(tiny_run | {"device": "cuda"})
    found = preflight.findings([spec], store_root, "quick")

    errors = [finding.message for finding in found if finding.severity == "error"]
    assert len(errors) == 2  # the teacher's run and the student's
    for error in errors:
        assert "but only 0 B of the 10.0 GB of cuda are free" in error
        assert "write another device" in error
    monkeypatch.setenv(spec_checks.INSIST, "1")
    found = preflight.findings([spec], store_root, "quick")
    assert [finding.severity for finding in found] == ["warning"]


def test_a_run_that_takes_the_cpu_beside_an_idle_gpu_says_why(tiny_run, store_root, monkeypatch):
    """A driver that torch cannot use, as one that is too old, does not make it slow in silence."""
    monkeypatch.setattr(torch_build, "mismatch", lambda: "The driver reaches only 11.4.")
    found = preflight.findings([RunSpec.parse(tiny_run)], store_root, "quick")

    assert [finding.message for finding in found] == [
        "This run takes the CPU. The driver reaches only 11.4."
    ]
    cpu = RunSpec.parse(tiny_run | {"device": "cpu"})
    assert not preflight.findings([cpu], store_root, "quick")


def test_compiled_layers_of_a_sharded_student_are_refused(tiny_run, store_root, monkeypatch):
    """Each launch under FSDP says so before the teacher's pass, not after it."""
    spec = RunSpec.parse(tiny_run | {"distill": tiny_run["distill"] | {"compile": True}})
    assert not preflight.findings([spec], store_root, "quick")
    monkeypatch.setattr(distributed, "num_shards", lambda: 2)
    (found,) = preflight.findings([spec], store_root, "quick")

    assert "distill.compile compiles a student that is whole on each device" in found.message


def test_more_devices_than_there_are_is_found_while_typing(
    busy_gpu, tiny_run, store_root, monkeypatch
):
    """With the number that there is; on a CPU any number of processes may share the work."""
    busy_gpu(free_gb=9, num_others=0)
    monkeypatch.setattr(accelerator, "found", lambda: [torch.device("cuda:0")])
    spec = RunSpec.parse(tiny_run | {"device": "cuda", "num_devices": 2})
    (found,) = preflight.findings([spec], store_root, "quick")

    assert "2 devices are asked for, but torch finds 1 here" in found.message
