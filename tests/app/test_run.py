"""The Run page: the order, its preview, the queue."""

import os
import re
import shutil
import socket
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import pytest
import torch

from explorer import jobs
from explorer import pipeline as engine
from explorer.analysis.planning.run_memory import Machine
from explorer.consent import host_keys
from explorer.errors import JobError
from explorer.jobs import ray_head, submission
from explorer.lm_eval_io import export_run, import_run
from explorer.pages.run import run_spec, students_form, training_form
from explorer.pages.shared import submitting
from explorer.pipeline import device_checks, forecast
from explorer.processes import cli_subprocess
from explorer.specs import DepthStudent, DistillSpec, RunSpec, Student, starter_sweep
from explorer.store import disk, frames
from explorer.tasks import index
from tests import records
from tests.app.reading import text_of


def test_the_form_opens_ready_to_start(root, open_page):
    """An untouched form is a valid order: the teacher and two students."""
    page = open_page("run")

    assert page.button(key="run_start").label == "Start 3 runs"
    assert not page.button(key="run_start").disabled
    assert "No earlier run of this teacher on this machine to go by" in text_of(page)


def test_start_hands_the_order_to_the_queue(root, open_page, submitted):
    """The button submits exactly what the form says."""
    page = open_page("run")
    page.text_input(key="run_other_sizes").input("5").run()
    page.number_input(key="run_max_tokens").set_value(4096).run()
    page.number_input(key="run_limit").set_value(8).run()
    page.button(key="run_start").click().run()

    assert not page.exception
    students = [spec for spec in submitted if spec.student]
    assert sorted(spec.student.num_layers for spec in students) == [5, 20, 24]
    assert {spec.distill.max_tokens for spec in students} == {4096}
    assert {spec.capability.limit for spec in submitted} == {8}


def test_the_form_orders_a_way_of_teaching_and_its_control_arm(root, open_page, submitted):
    """Method, loss and control arm reach the specs; what does not fit is not offered."""
    page = open_page("run")
    page.selectbox(key="run_method").set_value("live").run()
    page.selectbox(key="run_loss").set_value("jsd").run()
    page.slider(key="run_beta").set_value(0.25).run()
    page.slider(key="run_on_policy").set_value(0.5).run()
    page.checkbox(key="run_control").check().run()
    page.button(key="run_start").click().run()

    assert not page.exception
    taught = [spec.distill for spec in submitted if spec.distill]
    assert [one.method for one in taught] == ["live", "live", "labels", "labels"]
    assert (taught[0].loss, taught[0].beta, taught[0].on_policy_fraction) == ("jsd", 0.25, 0.5)
    page.selectbox(key="run_method").set_value("text").run()
    assert page.checkbox(key="run_control").disabled
    assert page.button(key="run_start").label == "Start 3 runs"


def test_the_form_orders_a_skew(root, open_page, submitted):
    """What belongs to one loss is asked for only there."""
    page = open_page("run")
    assert not [one for one in page.slider if one.key == "run_skew"]
    page.selectbox(key="run_loss").set_value("skew_reverse_kl").run()
    page.slider(key="run_skew").set_value(0.3).run()
    page.button(key="run_start").click().run()

    taught = [spec.distill for spec in submitted if spec.distill]
    assert {(one.loss, one.skew) for one in taught} == {("skew_reverse_kl", 0.3)}


def test_the_form_orders_products_in_bfloat16(root, open_page, submitted):
    """As the spec has them."""
    page = open_page("run")
    page.selectbox(key="run_precision").set_value("bfloat16").run()
    page.button(key="run_start").click().run()

    assert {one.distill.precision for one in submitted if one.distill} == {"bfloat16"}


def test_the_form_orders_speedups(root, open_page, submitted):
    """Both are off until they are chosen."""
    page = open_page("run")
    page.button(key="run_start").click().run()
    page.button_group(key="run_speedups").set_value(["compile", "prefetch"]).run()
    page.button(key="run_start").click().run()

    taught = [(one.distill.prefetch, one.distill.compile) for one in submitted if one.distill]
    assert set(taught) == {(False, False), (True, True)}


def test_only_a_student_of_fewer_layers_may_keep_some_untrained(root, open_page, submitted):
    """The choice is shut for other kinds, whose layers are all changed by the cut."""
    page = open_page("run")
    page.segmented_control(key="run_train_layers").set_value("auto").run()
    page.button(key="run_start").click().run()
    page.segmented_control(key="run_kind").set_value("width").run()
    page.button(key="run_start").click().run()

    assert page.segmented_control(key="run_train_layers").disabled
    taught = [(one.student.kind, one.distill.train_layers) for one in submitted if one.distill]
    assert set(taught) == {("depth", "auto"), ("width", "all")}


def test_tokens_are_drawn_only_beside_cached_distributions(root, open_page, submitted):
    """The field is shut for the other ways, whatever was typed there before."""
    page = open_page("run")
    page.number_input(key="run_vocab_sample").set_value(4096).run()
    page.button(key="run_start").click().run()
    page.selectbox(key="run_method").set_value("live").run()

    assert page.number_input(key="run_vocab_sample").disabled
    assert not page.exception
    assert {one.distill.vocab_sample for one in submitted if one.distill} == {4096}
    page.button(key="run_start").click().run()
    assert {one.distill.vocab_sample for one in submitted if one.distill} == {4096, None}


@pytest.mark.parametrize(
    ("offered", "spec", "field"),
    [
        (training_form.METHODS, DistillSpec, "method"),
        (training_form.LOSSES, DistillSpec, "loss"),
        (students_form.CHOICES, DepthStudent, "choice"),
        (training_form.TRAINED, DistillSpec, "train_layers"),
    ],
    ids=["methods", "losses", "choices", "layers"],
)
def test_the_page_offers_all_that_a_spec_can_say(offered, spec, field):
    """A way of teaching that is added to the specs cannot be forgotten on the page."""
    assert set(offered) == set(get_args(spec.model_fields[field].annotation))


def test_the_page_offers_every_kind_of_student():
    """As the specs tell them apart."""
    classes = [get_args(one)[0] for one in get_args(get_args(Student)[0])]
    kinds = {get_args(one.model_fields["kind"].annotation)[0] for one in classes}
    assert set(students_form.KINDS) == kinds


@pytest.mark.parametrize(
    ("kind", "typed", "sizes"),
    [
        ("width", "60M", [95_000_000, 68_000_000, 60_000_000]),
        ("both", "", [95_000_000, 68_000_000]),
        ("fresh", "45.5m", [95_000_000, 68_000_000, 45_500_000]),
    ],
)
def test_students_of_a_size_are_ordered_by_parameters(
    root, open_page, submitted, kind, typed, sizes
):
    """Narrower, both and from scratch: the same pills in parameters, the largest first."""
    page = open_page("run")
    page.segmented_control(key="run_kind").set_value(kind).run()
    page.text_input(key="run_other_targets").input(typed).run()
    page.button(key="run_start").click().run()

    assert not page.exception
    students = [spec for spec in submitted if spec.student]
    assert [spec.student.num_parameters for spec in students] == sizes
    assert {spec.student.kind for spec in students} == {kind}
    # What is random cannot stay frozen; what is cut is taught as before.
    assert {spec.distill.train_embeddings for spec in students} == {kind == "fresh"}


def test_an_existing_model_is_taught_as_it_is(root, open_page, submitted):
    """A name that is typed becomes a student; none leaves only the teacher."""
    page = open_page("run")
    page.segmented_control(key="run_kind").set_value("checkpoint").run()
    assert page.button(key="run_start").label == "Start 1 run"
    page.multiselect(key="run_models").set_value(["org/small"]).run()
    page.button(key="run_start").click().run()

    assert [spec.student.model for spec in submitted if spec.student] == ["org/small"]


def test_layers_can_be_chosen_one_by_one(root, open_page, submitted):
    """The slow choice reaches the spec."""
    page = open_page("run")
    page.selectbox(key="run_choice").set_value("greedy").run()
    page.button(key="run_start").click().run()

    assert {spec.student.choice for spec in submitted if spec.student} == {"greedy"}


def test_more_than_half_in_one_cut_offers_two_steps(root, study, open_page, submitted, tiny_llama):
    """The preview says how much goes, and a finished student can be where the next is cut from."""
    records.leave_student(root, study[2], tiny_llama(num_layers=20))

    page = open_page("run")
    pills = next(group for group in page.get("button_group") if "run_sizes" in str(group.key))
    pills.set_value([20, 10]).run()
    assert "10 layers: this removes 53% of" in text_of(page).replace("\\", "")
    page.selectbox(key="run_start_from").set_value(f"run:{study[2]}").run()
    assert "10 layers: this removes" not in text_of(page).replace("\\", "")
    page.button(key="run_start").click().run()

    starts = {spec.student.start_from for spec in submitted if spec.student}
    assert starts == {f"run:{study[2]}"}


def test_a_student_that_a_run_left_here_is_offered_where_its_run_ends(
    root, tiny_run, open_page, submitted
):
    """After a real run its student is under Cut from, among the teachers and the models to teach.

    Where its weights are not on this machine it is in none of them.
    """
    spec = RunSpec.parse({**tiny_run, "capability": None, "device": "cpu", "threads": 1})
    engine.run(spec, root)
    student = f"run:{spec.run_id}"

    page = open_page("run")
    assert student in page.selectbox(key="run_teacher").options
    page.selectbox(key="run_teacher").set_value(spec.teacher).run()
    assert page.selectbox(key="run_start_from").options == ["the teacher", student]
    page.selectbox(key="run_start_from").set_value(student).run()
    page.button(key="run_start").click().run()
    assert [spec.student.start for spec in submitted if spec.student] == [student]
    page.segmented_control(key="run_kind").set_value("checkpoint").run()
    assert page.multiselect(key="run_models").options == [student]

    shutil.rmtree(root / disk.STUDENTS)
    page.run()
    assert page.multiselect(key="run_models").options == []
    assert student not in page.selectbox(key="run_teacher").options
    page.segmented_control(key="run_kind").set_value("depth").run()
    assert "run_start_from" not in {box.key for box in page.selectbox}


def test_a_student_is_offered_once_for_all_its_number_formats(root, tiny_llama):
    """Its GGUF and quantised runs measure the same weights; alone, one of them stands for it."""
    whole = records.study()[3]
    formats = [whole.in_format(gguf="q8_0"), whole.in_format(torch_bits=8)]
    for spec in [whole, *formats]:
        records.write_run(root, records.make_record(spec=spec))
        weights = records.leave_student(root, whole.run_id, tiny_llama())
        disk.write_weights(root, spec.run_id, weights)

    def offered(specs):
        runs = frames.runs([disk.load(root, spec.run_id) for spec in specs])
        return run_spec.starts(root, "starter", runs)

    assert offered([*formats, whole]) == [f"run:{whole.run_id}"]
    assert offered(formats) == [f"run:{formats[0].run_id}"]


def test_no_sizes_measure_only_the_teacher(root, open_page, submitted):
    """Without a student the order is one run, the same that any sweep would start."""
    page = open_page("run")
    pills = next(group for group in page.get("button_group") if "run_sizes" in str(group.key))
    pills.set_value([]).run()
    page.button(key="run_start").click().run()

    assert [spec.run_id for spec in submitted] == [starter_sweep().runs()[0].run_id]


def test_models_are_ordered_again_as_gguf(root, open_page, submitted, monkeypatch):
    """Every model of the order once more in llama.cpp; without students, the teacher alone."""
    monkeypatch.setattr(device_checks, "load_llama_cpp", lambda: None)
    page = open_page("run")
    pills = {str(group.key): group for group in page.get("button_group")}
    pills["run_gguf"].set_value(["q8_0", "q4_k_m"]).run()
    assert "the teacher and 2 students, 6 more as GGUF" in text_of(page)
    next(group for key, group in pills.items() if "run_sizes" in key).set_value([]).run()
    assert page.button(key="run_start").label == "Start 3 runs"
    page.button(key="run_start").click().run()

    assert [spec.gguf for spec in submitted] == [None, "q8_0", "q4_k_m"]
    assert submitted[0].run_id == starter_sweep().runs()[0].run_id


def test_models_and_the_teacher_are_ordered_quantised(root, open_page, submitted):
    """Every model once more in 8 bits, in torch, and a teacher that teaches in 8."""
    page = open_page("run")
    pills = {str(group.key): group for group in page.get("button_group")}
    pills["run_torch_bits"].set_value([8]).run()
    assert "the teacher and 2 students, 3 more quantised in torch" in text_of(page)
    page.selectbox(key="run_teacher_bits").set_value(8).run()
    page.button(key="run_start").click().run()

    assert [spec.torch_bits for spec in submitted] == [None, None, None, 8, 8, 8]
    taught = [spec.distill.teacher_bits for spec in submitted if spec.distill]
    assert taught == [8, 8, 8, 8]


def test_the_form_orders_a_workload_a_runtime_and_levels_of_load(root, open_page, submitted):
    """A named shape sets both lengths; levels are sorted, and refused when they are none."""
    page = open_page("run")
    page.selectbox(key="run_workload").set_value("autocomplete").run()
    page.selectbox(key="run_runtime").set_value("compiled").run()
    page.text_input(key="run_levels").input("4, 1 2").run()
    page.button(key="run_start").click().run()

    asked = {spec.latency for spec in submitted}
    assert len(asked) == 1
    latency = asked.pop()
    assert (latency.prompt_tokens, latency.output_tokens) == (256, 32)
    assert (latency.runtime, latency.concurrency) == ("compiled", (1, 2, 4))
    page.text_input(key="run_levels").input("many").run()
    assert "Load levels are whole numbers" in page.error[0].value


def _endpoint_page(root, open_page, name):
    """The order form with an endpoint chosen, which an earlier run has named."""
    before = RunSpec(teacher=name, capability=None)
    records.write_run(root, records.make_record(spec=before, status="failed"))
    page = open_page("run")
    page.selectbox(key="run_teacher").set_value(name).run()
    return page


def test_students_are_ordered_on_several_devices(root, open_page, submitted):
    """Each student trains on that many; their teacher's run is the one that others share."""
    page = open_page("run")
    page.number_input(key="run_num_devices").set_value(2).run()
    page.button(key="run_start").click().run()

    assert not page.exception
    assert [spec.num_devices for spec in submitted] == [1 if s.is_teacher else 2 for s in submitted]


def test_an_endpoint_is_ordered_by_its_address(root, open_page, submitted):
    """One run that only times it: no students, tasks or formats are offered."""
    page = _endpoint_page(root, open_page, "endpoint:http://127.0.0.1:8080/v1#m")
    assert not page.exception
    assert not page.multiselect
    assert "To train students from this teacher, edit the study as YAML" in text_of(page)
    page.button(key="run_start").click().run()

    (spec,) = submitted
    assert (spec.student, spec.capability, spec.gguf) == (None, None, None)
    assert spec.name == "my-study"


def test_an_endpoint_can_be_tested_as_well(root, open_page, submitted, monkeypatch):
    """Tasks, how many requests at once, a limit in dollars and the NAME of the key's variable."""
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    rows = [index.TaskRow("starter", "task", output_type="multiple_choice")]
    rows += [index.TaskRow("gsm8k", "task", output_type="generate_until")]
    known = index.TaskIndex({row.name: row for row in rows}, [])
    for name, result in (("is_current", True), ("read_cached", known), ("build_index", known)):
        # lm-eval's own list takes half a minute to make.
        monkeypatch.setattr(index, name, lambda *folder, result=result: result)
    page = _endpoint_page(root, open_page, "endpoint:https://api.openai.com/v1#gpt-5-mini")
    page.toggle(key="run_api").set_value(True).run()
    assert not page.exception
    assert "per million input tokens" in text_of(page)
    assert "starter. Choose others" in page.warning[0].value
    page.multiselect(key="run_tasks").set_value(["gsm8k"]).run()
    assert not page.warning
    page.number_input(key="run_api_usd").set_value(2.5).run()
    host_keys.allow("api.openai.com", "MY_KEY")
    page.text_input(key="run_api_key").input("MY_KEY").run()
    assert "the environment variable MY_KEY is not set" in text_of(page).replace("\\", "")
    page.button(key="run_start").click().run()

    (spec,) = submitted
    assert spec.capability.tasks == ("gsm8k",)
    assert spec.capability.apply_chat_template
    assert spec.capability.api.max_usd == 2.5
    assert spec.capability.api.key_variable == "MY_KEY"


def test_the_cost_of_an_api_is_said_before_the_start(root, open_page, monkeypatch):
    """In the words of --dry-run, for the order as it stands; of another order nothing is said."""
    asked = []

    def output(arguments, what, *, timeout_s):
        asked.append(RunSpec.from_yaml(Path(arguments[1]).read_text()))
        assert arguments[2:] == ["--dry-run", "--unchecked", "--results", str(root)]
        return "About 1,200 requests: $0.3 to\n$0.4 (own price). Nothing\nwas evaluated."

    monkeypatch.setattr(cli_subprocess, "output", output)
    page = _endpoint_page(root, open_page, "endpoint:http://127.0.0.1:8080/v1/completions#m")
    assert not [button for button in page.button if button.key == "run_api_cost"]
    page.toggle(key="run_api").set_value(True).run()
    page.text_input(key="run_api_tokenizer").input("starter").run()
    page.button(key="run_api_cost").click().run()

    assert not page.exception
    assert "$0.3 to $0.4 (own price)" in text_of(page).replace("\\", "")
    assert asked[0].capability.api.tokenizer == "starter"
    page.number_input(key="run_limit").set_value(5).run()
    assert "own price" not in text_of(page)
    page.button(key="run_api_cost").click().run()
    assert [one.capability.limit for one in asked] == [None, 5]


def test_a_key_typed_where_its_name_belongs_is_not_shown(root, open_page):
    """The order is refused without repeating what was typed."""
    page = _endpoint_page(root, open_page, "endpoint:http://127.0.0.1:8080/v1/completions#m")
    page.toggle(key="run_api").set_value(True).run()
    page.text_input(key="run_api_tokenizer").input("starter").run()
    page.text_input(key="run_api_key").input("sk-secret").run()

    assert not page.exception
    assert "NAME of the environment variable" in page.error[0].value
    assert "sk-secret" not in page.error[0].value


def test_what_is_measured_is_not_started_again(root, study, open_page, submitted):
    """Runs that the store has finished are left out, and the preview says so."""
    page = open_page("run")
    page.text_input(key="run_name").input("starter").run()

    assert page.button(key="run_start").label == "Nothing to run: all results exist"
    assert page.button(key="run_start").disabled


def test_the_preview_says_what_will_be_refused(root, study, open_page, monkeypatch):
    """In the words of the refusal itself: how much memory is missing, and what would fit."""
    small = Machine("cpu", memory_bytes=10**6, disk_bytes=10**12, weight_bytes=4)
    monkeypatch.setattr(forecast, "machine_of", lambda *_: small)

    page = open_page("run")
    page.text_input(key="run_name").input("new").run()

    assert "but this device has 1.00 MB" in page.error[0].value
    assert page.button(key="run_start").disabled


def test_the_preview_rests_on_earlier_runs(study, open_page):
    """Time, memory and the smallest difference come from what the store has measured."""
    said = text_of(open_page("run"))

    assert "about " in said
    assert " min" in said
    assert "of memory" in said
    assert "From 6 earlier runs on" in said
    assert "1,080 documents reveal differences of" in said


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("run_name", "My Study!", "name"),
        ("run_other_sizes", "ten", "whole numbers of layers"),
    ],
)
def test_bad_input_is_one_sentence_and_no_start(root, open_page, key, value, said):
    """What cannot be is said in words beside a button that cannot be pressed."""
    page = open_page("run")

    page.text_input(key=key).input(value).run()

    assert not page.exception
    assert said in page.error[0].value.replace("\\", "")
    assert page.button(key="run_start").disabled


def test_a_student_with_more_layers_than_its_teacher_is_refused_while_typing(
    root, open_page, tiny_llama
):
    """Typed, as YAML or cut from another model: the sentence of a run, and nothing to press."""
    page = open_page("run")
    page.text_input(key="run_other_sizes").input("200").run()
    assert "200 layers requested, but the teacher starter has 30." in page.error[0].value
    assert [one for one in page.caption if "200 layers requested" in one.value], "beside the field"
    assert page.button(key="run_start").disabled
    page.text_input(key="run_other_sizes").input("29").run()
    assert not page.error
    assert not page.button(key="run_start").disabled

    page.toggle(key="run_as_yaml").set_value(True).run()
    cut = f"name: mine\nstudents:\n- num_layers: 7\n  start_from: {tiny_llama()}\ndistill: null\n"
    page.text_area(key="run_yaml").input(cut).run()
    assert "has 4. Choose fewer than 4." in page.error[0].value
    assert page.button(key="run_start").disabled


def test_the_sizes_on_offer_are_those_of_a_teacher_that_no_run_has_measured(
    root, open_page, tiny_llama
):
    """A folder's configuration is enough: three, two and one of its four layers."""
    page = _endpoint_page(root, open_page, str(tiny_llama()))

    pills = next(group for group in page.get("button_group") if "run_sizes" in str(group.key))
    assert [option.content for option in pills.proto.options] == ["3", "2", "1"]
    assert not page.error


def test_a_size_that_is_no_number_is_refused(root, open_page):
    """Sizes in parameters are typed as in 60M; the message says so."""
    page = open_page("run")
    page.segmented_control(key="run_kind").set_value("both").run()
    page.text_input(key="run_other_targets").input("small").run()

    assert "such as 60M, 1.5B; got 'small'" in page.error[0].value.replace("\\", "")


def test_an_uploaded_corpus_is_read_apart_and_kept_only_if_it_is_one(root, tmp_path, open_page):
    """A damaged upload is one sentence with its name and line, and leaves no file behind."""
    page = open_page("run")
    page.segmented_control(key="run_corpus").set_value("upload").run()
    page.file_uploader(key="run_upload").set_value(("bad.jsonl", b'{"txt": "words"}', "")).run()

    said = page.error[0].value.replace("\\", "")
    assert "bad.jsonl, line 1: expected" in said
    assert list((tmp_path / "cache" / "uploads").iterdir()) == []

    page.file_uploader(key="run_upload").set_value(("good.jsonl", b'{"text": "words"}', "")).run()
    assert not page.error
    (kept,) = (tmp_path / "cache" / "uploads").iterdir()
    assert kept.name.startswith("good-")


def test_a_corpus_that_is_not_there_is_refused(root, open_page):
    """A path without a file is refused before anything starts."""
    page = open_page("run")
    page.segmented_control(key="run_corpus").set_value("path").run()
    page.text_input(key="run_path").input("/no/such/file.txt").run()

    assert "There is no corpus file" in page.error[0].value.replace("\\", "")


def test_the_order_can_be_edited_as_yaml(root, open_page, submitted):
    """The form's order is where the YAML starts; what it then says is what starts."""
    page = open_page("run")
    page.toggle(key="run_as_yaml").set_value(True).run()
    assert "num_layers: 20" in page.text_area(key="run_yaml").value
    page.text_area(key="run_yaml").input(
        "name: mine\nstudents:\n- num_layers: 7\ndistill: null\n"
    ).run()
    page.button(key="run_start").click().run()

    assert [spec.student.num_layers for spec in submitted if spec.student] == [7]


def test_students_of_an_endpoint_are_ordered_as_yaml(root, open_page, submitted):
    """The endpoint's own run and the students'; what it cannot teach is refused on the page."""
    page = open_page("run")
    page.toggle(key="run_as_yaml").set_value(True).run()
    text = (
        "name: served\nteacher: endpoint:http://h/v1/completions#m\ndistill: {}\n"
        "students:\n- kind: checkpoint\n  model: org/small\n- num_layers: 7\n"
    )
    page.text_area(key="run_yaml").input(text).run()
    assert "write student.start_from" in page.error[0].value.replace("\\", "")
    page.text_area(key="run_yaml").input(f"{text}  start_from: org/small\n").run()
    assert not page.exception
    page.button(key="run_start").click().run()

    assert [spec.student and spec.student.kind for spec in submitted] == [
        None,
        "checkpoint",
        "depth",
    ]


def test_yaml_that_is_no_spec_is_refused(root, open_page):
    """An unknown key is named."""
    page = open_page("run")
    page.toggle(key="run_as_yaml").set_value(True).run()
    page.text_area(key="run_yaml").input("name: mine\nlayers: 7\n").run()

    assert "unknown key layers" in page.error[0].value.replace("\\", "")


def test_the_queue_shows_a_failed_run_and_resumes_it(root, open_page, monkeypatch):
    """A failed run's line has the error and a button that queues it again."""
    resumed = []
    monkeypatch.setattr(jobs, "resume", lambda root, run_id, told: resumed.append(run_id) or run_id)
    failed = records.make_record(num_layers=12, status="failed")
    records.write_run(root, failed)

    page = open_page("run")
    assert "The disk is full" in text_of(page)
    page.button(key=f"resume_{failed.run_id}").click().run()

    assert not page.exception
    assert resumed == [failed.run_id]


def test_a_running_run_shows_how_far_it_is_and_can_be_cancelled(root, open_page, monkeypatch):
    """The line has stage, progress, speed, time left, and a Cancel that reaches the run."""
    cancelled = []
    monkeypatch.setattr(jobs, "cancel", lambda root, run_id: cancelled.append(run_id))
    run_id = _running(root)

    page = open_page("run")
    bars = [element.proto.text.replace("\\", "") for element in page.get("progress")]
    page.button(key=f"cancel_{run_id}").click().run()

    assert any("Training" in text and "412 tokens/s" in text for text in bars)
    assert any("5 min left" in text for text in bars)
    assert cancelled == [run_id]


def test_everything_in_the_queue_is_cancelled_by_one_button_that_asks(root, open_page):
    """The button says how many runs it stops; runs that have ended stay as they are."""
    ids = records.write_every_state(root)
    page = open_page("run")
    sure = page.button(key="queue_cancel_all_sure")
    assert sure.label == "Cancel 3 runs"
    assert "Checkpoints stay" in text_of(page)

    sure.click().run()

    assert not page.exception
    active = ("queued", "begun", "running")
    asked = {name for name in ids if disk.cancel_requested(root, ids[name])}
    states = {name: jobs.state_of(root, ids[name]) for name in active}
    assert asked >= {"begun", "running"}
    assert states["queued"] == "cancelled"
    assert jobs.state_of(root, ids["failed"]) == "failed"
    assert not disk.cancel_requested(root, ids["failed"])


@pytest.mark.parametrize("page", ["run", "explore", "compare", "economics", "answers"])
def test_pages_draw_whatever_state_a_run_is_in(root, open_page, tmp_path, page):
    """Queued, begun, running, failed, cancelled, interrupted, finished and imported together."""
    ids = records.write_every_state(root)
    export_run.write_files(export_run.lm_eval_files(root, ids["finished"]), tmp_path / "lm-eval")
    import_run.import_folder(root, tmp_path / "lm-eval", "brought")

    shown = open_page(page)

    bars = [element.proto.text.replace("\\", "") for element in shown.get("progress")]
    assert not re.search(r"\bnan\b", " ".join([text_of(shown), *bars]).lower())
    if page == "run":
        assert "Starting" in bars
        assert "Queued" in bars
        assert any("Training" in text and "40,000 of 150,000 tokens" in text for text in bars)


def test_a_finished_line_is_its_result(study, open_page):
    """A finished student's line says what it keeps and how fast it is."""
    assert "Finished: keeps" in text_of(open_page("run")).replace("\\", "")


def test_a_finished_line_of_a_busy_machine_offers_to_time_it_again(
    root, study, open_page, monkeypatch
):
    """It says that its time is not used; the other lines have no such button."""
    records.make_busy(root, study[1])
    resumed = []
    monkeypatch.setattr(jobs, "resume", lambda root, run_id, told: resumed.append(run_id))

    page = open_page("run")

    assert "per token (machine was busy, not used)" in text_of(page).replace("\\", "")
    again = [button for button in page.button if button.label == "Time it again"]
    assert [button.key for button in again] == [f"time_again_{study[1]}"]
    again[0].click().run()
    assert resumed == [study[1]]

    monkeypatch.setenv("EXPLORER_READ_ONLY", "1")
    assert not open_page("run").button


def test_read_only_shows_the_queue_and_no_form(root, study, open_page, monkeypatch):
    """With EXPLORER_READ_ONLY=1 the page only watches."""
    monkeypatch.setenv("EXPLORER_READ_ONLY", "1")
    run_id = _running(root)

    page = open_page("run")

    assert "read-only" in page.info[0].value
    assert not page.button
    assert run_id in text_of(page).replace("\\", "")


def _running(root) -> str:
    """A run whose process (this one) is alive and says that it is teaching."""
    spec = records.study("live", layers=(20,), seed=4)[1]
    disk.open_run(root, spec)
    disk.write_status(
        root,
        spec.run_id,
        {
            "run_id": spec.run_id,
            "state": "running",
            "stage": "distil",
            "done": 40_000,
            "total": 150_000,
            "unit": "tokens",
            "seconds": 97.0,
            "seconds_left": 300.0,
            "loss": 1.23,
            "losses": [2.5, 1.7, 1.23],
            "tokens_per_s": 412.0,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "updated_at": time.time(),
        },
    )
    return spec.run_id


@pytest.fixture
def held(monkeypatch):
    """A queue whose engine starts until the test says that it runs; the presses are counted."""
    running, told, presses = threading.Event(), threading.Event(), []

    def submit(specs, root, on_progress):
        presses.append([spec.run_id for spec in specs])
        for spec in specs:
            disk.open_run(root, spec)
        on_progress(ray_head.STARTING, 0, len(specs))
        told.set()
        assert running.wait(60)
        if specs[0].device == "cpu":
            raise JobError("No machine of the queue has a GPU.")

    monkeypatch.setattr(jobs, "submit", submit)
    monkeypatch.setattr(
        submission, "in_background", lambda work: threading.Thread(target=work).start()
    )
    yield SimpleNamespace(running=running, told=told, presses=presses)
    running.set()


def test_a_press_of_start_shows_at_once_what_is_going_on(root, open_page, held):
    """The button cannot be pressed again, here or in a second tab, and the step is beside it."""
    page = open_page("run")
    page.button(key="run_start").click().run()
    assert (page.button(key="run_start").label, page.button(key="run_start").disabled) == (
        "Starting…",
        True,
    )
    assert held.told.wait(60)

    # Another tab, and this one after something was typed.
    page.text_input(key="run_name").input("another").run()
    for tab in (page, open_page("run")):
        assert tab.button(key="run_start").disabled
        (line,) = [bar.proto.text for bar in tab.get("progress") if "engine" in bar.proto.text]
        assert line.startswith("Starting the queue engine, up to half a minute the first time, ")
    held.running.set()
    assert submission.find(root, submitting.START).wait(60)
    page.run()

    assert len(held.presses) == 1
    assert page.button(key="run_start").label == "Start 3 runs"
    assert not page.button(key="run_start").disabled
    assert "In the queue: 3 runs" in [toast.value for toast in page.toast]


def test_what_keeps_an_order_from_starting_is_one_line_until_it_is_closed(
    root, open_page, held, monkeypatch
):
    """An error that comes after the press reaches the page, and Close takes it away."""
    monkeypatch.setattr(device_checks, "pick_device", lambda name: torch.device("cpu"))
    monkeypatch.setattr(forecast, "pick_device", lambda name: torch.device("cpu"))
    page = open_page("run")
    page.selectbox(key="run_device").set_value("cpu").run()
    page.button(key="run_start").click().run()
    held.running.set()
    assert submission.find(root, submitting.START).wait(60)
    page.run()

    assert "No machine of the queue has a GPU." in page.error[0].value
    assert not page.button(key="run_start").disabled
    page.button(key=f"submitting_close_{submitting.START}").click().run()
    assert not page.error


def test_the_default_order_repeats_the_studys_settings_and_is_not_criticised(
    root, open_page, submitted, monkeypatch
):
    """Another size under the conditions of the newest study; its preview warns of nothing."""
    shutil.copytree(records.STUDY, root, dirs_exist_ok=True)
    page = open_page("run")

    assert not page.error
    assert not [one for one in page.caption if "warning" in one.value]
    page.button(key="run_start").click().run()
    study = starter_sweep()
    trained = [spec for spec in submitted if spec.student and not spec.format]
    assert {spec.distill for spec in trained} == {study.distill}
    assert {spec.student for spec in trained} == set(study.students[:2])


def test_yaml_shows_the_line_of_its_error(root, open_page):
    """Under the field, with the lines around it and what was meant; the plan points there."""
    page = open_page("run")
    page.toggle(key="run_as_yaml").set_value(True).run()
    page.text_area(key="run_yaml").input(
        "name: mine\nstudnts: [{num_layers: 20}]\ndistill: {max_tokens: many}\n"
    ).run()

    under_it, beside_it = (error.value.replace("\\", "") for error in page.error)
    assert "line 2, column 1: unknown key studnts; did you mean students?" in under_it
    assert under_it.index("line 2") < under_it.index("line 3"), "the first line comes first"
    assert "→   2 studnts" in page.code[0].value
    assert "see under it" in beside_it


def test_the_queue_is_in_three_parts(root, study, open_page):
    """Now with one total for the study, done, and failed."""
    _running(root)
    records.write_run(root, records.make_record(num_layers=12, status="failed"))

    said = text_of(open_page("run")).replace("\\", "")

    parts = [said.index(f'<p class="step">{name}</p>') for name in ("Now", "Done", "Failed")]
    assert parts == sorted(parts)
    assert "**live**: 1 running, about 5 min left" in said


def test_a_failed_order_is_edited_or_deleted(root, open_page, submitted):
    """Edit puts it into the form as YAML, ready to start; Delete can be undone."""
    failed = records.make_record(num_layers=12, status="failed")
    records.write_run(root, failed)
    page = open_page("run")

    page.button(key=f"edit_{failed.run_id}").click().run()
    assert not page.exception
    assert "num_layers: 12" in page.text_area(key="run_yaml").value
    page.button(key="run_start").click().run()
    assert failed.run_id in {spec.run_id for spec in submitted}

    page.button(key=f"delete_{failed.run_id}").click().run()
    assert disk.run_ids(root) == []
    page.button(key=f"undo_{failed.run_id}").click().run()
    assert disk.run_ids(root) == [failed.run_id]


def test_no_time_is_named_before_it_means_something(root, study, open_page):
    """Where no earlier run was evaluated on a task, the preview gives no minutes and no dollars."""
    page = open_page("run")
    page.multiselect(key="run_tasks").set_value(["starter", "mmlu"]).run()

    said = text_of(page)
    assert "Time unknown" in said
    assert "Excludes evaluation: no earlier run to go by." in said
