"""A server that a run starts: its command, its life, its failures. The programs are stand-ins.

`test_llama_server.py` starts llama.cpp's own, `test_transformers_server.py` that of transformers.
"""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from explorer import pipeline as engine
from explorer.errors import BadInput, DamagedStore, RunCancelled, RunFailed
from explorer.latency.servers import arguments, engines, keeper, server
from explorer.pipeline import preflight
from explorer.processes import child_process
from explorer.specs import LatencySpec, RunSpec, ServeSpec
from explorer.store import disk, frames
from tests import stub_server
from tests.running_server import running

TIMED = {
    "prompt_tokens": 8,
    "output_tokens": 4,
    "warmup": 1,
    "repeats": 3,
    "concurrency": [1, 2],
    "requests": 6,
}
TARGET = engines.Target(Path("/models/m"), "float32", "cpu", 2, num_clients=4, num_tokens=192)


@pytest.fixture
def config(tmp_path, monkeypatch):
    """Write the user's configuration."""
    path = tmp_path / "config" / "config.yaml"
    path.parent.mkdir()
    monkeypatch.setenv("EXPLORER_CONFIG", str(path))

    def write(**keys):
        path.write_text(json.dumps(keys))

    return write


@pytest.fixture
def stub(tmp_path, config, monkeypatch):
    """Install stand-ins for all programs; a function that sets their fault and reads what they got.

    They come by the configuration, as a real server may be installed here.
    """
    folder = tmp_path / "bin"
    orders = stub_server.install(folder, *(known.program for known in engines.SERVERS.values()))
    config(servers={name: str(folder / known.program) for name, known in engines.SERVERS.items()})

    def order(fault=""):
        assert fault in stub_server.FAULTS
        orders.write_text(json.dumps({"fault": fault}))
        return lambda: json.loads(orders.read_text())

    return order


@pytest.fixture
def served(tiny_llama):
    """A spec that times a tiny teacher in a server."""

    def make(name="vllm", **latency):
        serve = {"engine": name, "wait_s": 300}
        return RunSpec(
            teacher=str(tiny_llama(num_layers=1)),
            capability=None,
            latency={**TIMED, "serve": serve, **latency},
            device="cpu",
            threads=1,
        )

    return make


def start(tmp_path, name="vllm", wait_s=300, on_wait=lambda: None):
    which, program = engines.choose(name, reads_gguf=name == "llama.cpp")
    return server.running(
        which,
        program,
        TARGET,
        (),
        log_path=tmp_path / "server.log",
        wait_s=wait_s,
        on_wait=on_wait,
    )


def gone(*pids):
    """Whether these processes end within a while."""
    deadline = time.monotonic() + 30
    alive = [pid for pid in pids if pid]
    while alive and time.monotonic() < deadline:
        alive = [
            pid
            for pid in alive
            if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        ]
        time.sleep(0.05)
    return not alive


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("vllm", "serve /models/m --served-model-name model --dtype float32"),
        (
            "sglang",
            "serve --model-path /models/m --served-model-name model --dtype float32 --device cpu",
        ),
        (
            "llama.cpp",
            "--model /models/m --alias model --device none --threads 2 --parallel 4 "
            "--ctx-size 1024",
        ),
        ("transformers", "serve /models/m --dtype float32 --device cpu"),
    ],
)
def test_each_server_gets_the_model_and_a_port_of_this_machine_only(name, command):
    """Model, number format, device and address are ours; the address comes last, where it wins."""
    made = engines.command(engines.SERVERS[name], Path("/bin/it"), TARGET, ("--seed", "1"), 8123)

    ours = ["--seed", "1", "--host", "127.0.0.1", "--port", "8123"]
    assert made == ["/bin/it", *command.split(), *ours]


def test_an_argument_of_the_spec_replaces_ours():
    """Who asks for another number format, or for more slots, gets them, by any of their names."""
    llama = engines.SERVERS["llama.cpp"]
    made = engines.command(llama, Path("/bin/it"), TARGET, ("-c", "64", "--threads=8"), 1)
    vllm = engines.command(engines.SERVERS["vllm"], Path("/v"), TARGET, ("--dtype", "half"), 1)

    assert "--ctx-size" not in made
    assert "--threads" not in made
    assert "--parallel" in made
    assert "float32" not in vllm


def test_code_of_a_model_runs_only_where_the_spec_says_so():
    """The server is told what the spec says, and permission is asked before (`own_code`)."""
    trusting = engines.Target(Path("/m"), "float32", "cpu", 1, 1, 8, trust_remote_code=True)
    for name in ("vllm", "sglang", "transformers"):
        known = engines.SERVERS[name]
        assert "--trust-remote-code" in engines.command(known, Path("/v"), trusting, (), 1)
        assert "--trust-remote-code" not in engines.command(known, Path("/v"), TARGET, (), 1)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["--port", "80"], "may not have --port: the server gets a free port of 127.0.0.1"),
        (["--host=0.0.0.0"], "may not have --host"),
        (["--served_model_name", "x"], "may not have --served-model-name"),
        ("--model other", "may not have --model"),
        (["-tp", "2"], "may not have -tp: a run is timed and priced on one device"),
        (["--trust-remote-code"], "write trust_remote_code: true"),
        (["vllm", "serve"], "should begin with an option"),
        ("--a 'b", "is not a command's arguments"),
        ([True], "should be a valid string"),
    ],
)
def test_a_spec_cannot_set_what_is_set_here(given, sentence):
    """Address, model, device and permission are not arguments; the sentence says what to do."""
    with pytest.raises(BadInput, match=sentence):
        ServeSpec.parse({"arguments": given})


def test_arguments_may_be_a_text_or_a_list_with_numbers():
    """As on a command line, or as YAML reads numbers: the same spec either way."""
    made = ServeSpec.parse({"arguments": ["--max-model-len", 4096]})

    assert made == ServeSpec.parse({"arguments": "--max-model-len 4096"})
    assert made.arguments == ("--max-model-len", "4096")


@pytest.mark.parametrize(
    ("latency", "sentence"),
    [
        ({"runtime": "compiled"}, "runtime compiled and serve are two ways"),
        ({"batch_size": 2}, "batch_size has to be 1 with serve"),
        ({"serve": {"engine": "ollama"}}, "serve.engine should be 'vllm'|serve.engine"),
        ({"serve": {"wait_s": 0}}, "serve.wait_s should be greater than 0"),
    ],
)
def test_contradictions_are_refused(latency, sentence):
    """Each has its sentence before anything starts."""
    with pytest.raises(BadInput, match=sentence):
        LatencySpec.parse({"serve": {}, **latency})


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("vllm", "--chat-template /tmp/x.jinja"),
        ("vllm", "--middleware os.system"),
        ("vllm", "--trust-remote-cod"),
        ("vllm", "--quantization /etc/passwd"),
        ("vllm", "--enforce-eager ./x"),
        ("llama.cpp", "--tools all"),
        ("llama.cpp", "--slot-save-path /tmp"),
        ("transformers", "--attn-implementation org/kernel"),
        ("sglang", "--load-format remote"),
    ],
)
def test_an_argument_that_could_read_files_or_run_code_needs_the_user(config, name, given):
    """A spec may come from anybody: only what sets how the server computes passes unasked."""
    config()
    spec = ServeSpec.parse({"arguments": given})
    known = engines.SERVERS[name]

    with pytest.raises(BadInput, match=r"allowed_server_arguments: \[.*config\.yaml"):
        arguments.refuse(known, spec.arguments)
    option = given.partition(" ")[0]
    config(allowed_server_arguments=[option])
    arguments.refuse(known, spec.arguments)


def test_an_allowed_value_allows_no_other(config):
    """--name=VALUE in the configuration is for this value alone."""
    config(allowed_server_arguments=["--chat-template=/a.jinja"])
    vllm = engines.SERVERS["vllm"]
    arguments.refuse(vllm, ("--chat-template", "/a.jinja"))
    arguments.refuse(vllm, ("--chat-template=/a.jinja",))

    with pytest.raises(BadInput, match="could read files or run code"):
        arguments.refuse(vllm, ("--chat-template", "/b.jinja"))


def test_arguments_that_only_set_how_it_computes_pass(config):
    """Numbers and choices, with dashes or underscores."""
    config()
    given = ("--max-model-len", "4096", "--gpu_memory_utilization=0.8", "--enforce-eager")
    arguments.refuse(engines.SERVERS["vllm"], given)


@pytest.mark.parametrize(
    ("name", "reads_gguf", "came", "install"),
    [
        ("vllm", False, "vLLM is not installed: no program vllm is on PATH", "pip install vllm"),
        ("sglang", False, "SGLang is not installed: no program sglang is", "pip install sglang"),
        ("llama.cpp", True, "llama.cpp is not installed: no program llama-server", "brew install"),
        (
            "transformers",
            False,
            "no program transformers is",
            "pip install 'transformers[serving]'",
        ),
        ("auto", False, "no server that reads safetensors is installed", "SGLang: pip install"),
        ("auto", True, "llama.cpp is not installed", "brew install llama.cpp"),
    ],
)
def test_without_a_server_the_sentence_says_what_to_install(
    config, monkeypatch, name, reads_gguf, came, install
):
    """What was expected, what is missing, what to install, and where to name one's own program."""
    config()
    monkeypatch.setattr(engines.shutil, "which", lambda *args, **kwargs: None)

    with pytest.raises(BadInput) as refused:
        engines.choose(name, reads_gguf=reads_gguf)
    sentence = str(refused.value)
    assert sentence.startswith("latency.serve is to time the model in a server, but ")
    assert came in sentence
    assert install in sentence
    assert f"under servers in {os.environ['EXPLORER_CONFIG']}" in sentence


def test_transformers_without_its_web_server_is_not_installed(config, monkeypatch):
    """Its program is always here; what it needs to serve is an extra of its package."""
    config()
    monkeypatch.setattr(
        engines.importlib.util, "find_spec", lambda name: None if name != "uvicorn" else object()
    )

    with pytest.raises(BadInput, match="transformers is here without fastapi and openai") as error:
        engines.choose("transformers", reads_gguf=False)
    assert "pip install 'transformers[serving]'" in str(error.value)


def test_auto_takes_the_first_installed_server_that_reads_the_model(stub, config, tmp_path):
    """First vLLM, then SGLang, then transformers for safetensors, llama.cpp for GGUF."""
    assert engines.choose("auto", reads_gguf=False)[0].engine == "vllm"
    assert engines.choose("auto", reads_gguf=True)[0].engine == "llama.cpp"
    config(servers={"sglang": str(tmp_path / "bin" / "sglang")})
    assert engines.choose("sglang", reads_gguf=False)[0].engine == "sglang"


def test_a_program_that_is_not_there_is_named(config):
    """The configuration's mistake is its own sentence."""
    config(servers={"vllm": "/nowhere/vllm"})
    with pytest.raises(BadInput, match="/nowhere/vllm as the program of vLLM"):
        engines.choose("vllm", reads_gguf=False)
    config(servers={"vllm": "vllm"})
    with pytest.raises(BadInput, match="absolute paths"):
        engines.choose("vllm", reads_gguf=False)


@pytest.mark.parametrize("name", engines.SERVERS)
def test_a_server_is_healthy_says_its_version_and_ends_with_the_block(stub, tmp_path, name):
    """It listens on 127.0.0.1 while it is needed; its log stays."""
    told = stub()
    with start(tmp_path, name) as live:
        assert live.version == stub_server.VERSION
        assert live.owns_port()
        assert live.load_s > 0
        live.check_alive()
        pid = told()["pid"]
        assert psutil.pid_exists(pid)

    assert gone(pid, live.process.pid)
    text = live.log_path.read_text()
    assert text.startswith("$ ")
    assert "Starting" in text


def test_all_that_a_server_started_ends_with_it(stub, tmp_path, monkeypatch):
    """Also a worker that ignores the request to end."""
    monkeypatch.setattr(keeper, "STOP_S", 0.5)
    told = stub("leaves a child")
    with start(tmp_path):
        pids = told()["pid"], told()["child"]
        assert all(psutil.pid_exists(pid) for pid in pids)

    assert gone(*pids)


def test_a_taken_port_is_left_to_whoever_has_it(stub, tmp_path, monkeypatch):
    """Somebody took the port since we looked: the next one is tried, and theirs is not measured."""
    stub()
    with running(stub_server.ThreadingHTTPServer(("127.0.0.1", 0), stub_server.Handler)) as other:
        other.fault = ""
        taken, free = other.server_address[1], child_process.free_port()
        ports = iter([taken, free])
        monkeypatch.setattr(child_process, "free_port", lambda: next(ports))
        with start(tmp_path) as live:
            assert live.port == free
            assert live.owns_port()

        monkeypatch.setattr(child_process, "free_port", lambda: taken)
        with pytest.raises(RunFailed, match=rf"port {taken}"), start(tmp_path):
            pytest.fail("the other server was taken for ours")


def test_a_server_that_never_gets_healthy_is_ended_with_its_last_words(stub, tmp_path, monkeypatch):
    """The sentence says what /health said, how long that was, and where the log is."""
    told = stub("unhealthy")
    seconds = itertools.count()
    # Time passes only while it listens, however busy this machine is.
    clock = SimpleNamespace(
        monotonic=lambda: next(seconds) if "pid" in told() else 0, sleep=time.sleep
    )
    monkeypatch.setattr(server, "time", clock)
    sentence = (
        r"not healthy after 5 s: /health answered with status 503\. Raise latency\.serve\.wait_s"
        r".*Starting.*server\.log"
    )

    with pytest.raises(RunFailed, match=sentence), start(tmp_path, wait_s=5):
        pytest.fail("it was never healthy")
    assert gone(told()["pid"])


def test_transformers_is_ready_without_a_list_of_models(stub, tmp_path):
    """Its list is of the hub's cache, and fails on a machine that has none."""
    stub("no list of models")

    with start(tmp_path, "transformers", wait_s=60) as live:
        live.check_healthy()


def test_a_server_that_ends_at_once_says_why(stub, tmp_path):
    """Its exit code and its last lines are in the sentence."""
    stub("dies at once")
    sentence = r"vLLM server ended by itself \(exit code 1\).*architecture is not supported"

    with pytest.raises(RunFailed, match=sentence), start(tmp_path):
        pytest.fail("it was never healthy")


def test_no_log_is_written_through_a_link(stub, tmp_path):
    """A store from elsewhere may hold a link in the log's place."""
    stub()
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "server.log").symlink_to(tmp_path / "mine")

    with pytest.raises(DamagedStore, match="is a link"), start(tmp_path):
        pytest.fail("it started")
    assert (tmp_path / "mine").read_text() == "mine"


def test_waiting_can_be_given_up(stub, tmp_path):
    """A run that is cancelled while the server loads does not wait for it."""
    told = stub("unhealthy")

    def on_wait():
        if "pid" in told():
            raise RunCancelled("cancelled")

    with pytest.raises(RunCancelled), start(tmp_path, on_wait=on_wait):
        pytest.fail("it was never healthy")
    assert gone(told()["pid"])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_server_outlives_its_run(stub, tmp_path, number):
    """A killed run cannot end its server: the keeper notices and does."""
    told = stub("leaves a child")
    code = f"""
import time
from pathlib import Path
from explorer.latency.servers import engines, server
which, program = engines.choose("vllm", reads_gguf=False)
target = engines.Target(Path("/m"), "float32", "cpu", 1, 1, 8)
log = Path({str(tmp_path / "log")!r})
with server.running(
    which, program, target, (), log_path=log, wait_s=300, on_wait=lambda: None
):
    print("ready", flush=True)
    time.sleep(120)
"""
    run = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert run.stdout.readline().strip() == "ready"
    pids = told()["pid"], told()["child"]

    run.send_signal(number)
    run.wait()
    run.stdout.close()

    assert gone(*pids)


def test_a_run_times_its_model_in_the_server(stub, served, store_root):
    """The record has the server's version and whole command, and its times are marked as its."""
    told = stub()
    spec = served()
    record = engine.run(spec, store_root)

    own = record.latency.own
    assert (own.runtime.name, own.runtime.version) == ("vLLM server", stub_server.VERSION)
    assert own.runtime.command[1:] == told()["arguments"]
    assert own.runtime.disk_bytes > 0
    assert len(own.turns) == 3
    assert [(point.kind, point.level) for point in own.curve][0] == ("clients", 1)
    assert own.prompt_tokens == 8
    assert record.environment.device == "cpu"
    assert (disk.run_folder(store_root, spec.run_id) / disk.SERVER_LOG).is_file()
    row = frames.row(record)
    assert row["runtime"] == "vLLM server"
    assert row["label"] == "teacher, vLLM server"
    assert gone(told()["pid"])


def test_a_resumed_run_starts_no_server_again(stub, served, store_root):
    """The timing is kept by what decides it, the server included."""
    stub()
    first = engine.run(served(), store_root)
    (disk.run_folder(store_root, first.run_id) / disk.RECORD).unlink()
    stub("dies at once")

    assert engine.run(served(), store_root).latency == first.latency


def test_a_server_that_dies_in_the_middle_fails_the_run_with_its_last_words(
    stub, served, store_root
):
    """Not as requests that failed: the sentence is about the server."""
    stub("dies in the middle")

    with pytest.raises(RunFailed, match=r"ended by itself \(exit code 7\).*illegal memory access"):
        engine.run(served(requests=30), store_root)


def test_a_cancelled_run_ends_its_server(stub, served, store_root):
    """Within seconds, and the run can be resumed."""
    told = stub("unhealthy")
    spec = served()

    def cancel(status):
        if status["stage"].startswith("starting") and "pid" in told():
            disk.request_cancel(store_root, spec.run_id)

    with pytest.raises(RunCancelled):
        engine.run(spec, store_root, cancel)
    assert gone(told()["pid"])


def test_an_order_without_its_server_is_refused_before_it_starts(config, served, tmp_path):
    """`explorer check`, --dry-run and the Run page say what to install."""
    config(servers={"vllm": "/nowhere/vllm"})

    found = preflight.findings([served()], tmp_path / "store", "quick")

    assert [finding.field for finding in found] == ["latency.serve"]
    assert found[0].severity == "error"


def test_a_format_that_the_server_does_not_read_is_timed_without_it(stub, served, tmp_path):
    """One `serve` in a sweep of several formats: a warning says for which it does not apply."""
    spec = served("llama.cpp")
    assert spec.server is None
    assert spec.with_(gguf="q8_0").server is not None
    assert served("vllm").with_(gguf="q8_0").server is None
    assert served("auto").with_(torch_bits=8).server is None

    found = preflight.findings([spec], tmp_path / "store", "quick")

    assert [(finding.severity, finding.field) for finding in found] == [
        ("warning", "latency.serve")
    ]
    assert "llama.cpp serves GGUF files, and this model is not" in found[0].message


def test_a_students_teacher_is_timed_in_the_same_server(served):
    """Their times can be compared, as both are those of one server."""
    spec = served().with_(student={"num_layers": 1})

    assert spec.teacher_run().server == spec.server


def test_a_spec_without_a_server_is_the_same_as_before(served):
    """Run ids and stage keys of stored runs hold."""
    spec = served().with_(latency=TIMED)

    assert "serve" not in spec.identity()["latency"]
    assert os.environ.get("STUB") is None
