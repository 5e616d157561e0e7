"""Chance level and headline metric: one decision for the list of tasks, a run and an import."""

import pytest

from explorer.errors import BadInput
from explorer.lm_eval_io import metrics, results
from explorer.records.rows import row_dicts
from explorer.tasks import index_builder

CHOICE = {
    "task": "t",
    "output_type": "multiple_choice",
    "doc_to_choice": ["a", "b", "c", "d"],
    "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
}
FREE = {
    "task": "t",
    "output_type": "generate_until",
    "metric_list": [{"metric": "f1"}, {"metric": "exact_match"}],
}


def line(config, doc_id, values):
    """A sample of a task, as lm-eval writes it."""
    choices = config.get("doc_to_choice", [])
    texts = [("Which?", f" {choice}") for choice in choices] or [("Which?", "{}")]
    return {
        "doc_id": doc_id,
        "doc": {"q": doc_id},
        "doc_hash": f"{doc_id:064x}",
        "target": "0",
        "filter": "none",
        "arguments": {f"gen_args_{i}": {"arg_0": p, "arg_1": c} for i, (p, c) in enumerate(texts)},
        "filtered_resps": [["-1.0", "False"] for _ in texts] if choices else ["b"],
        **values,
    }


@pytest.mark.parametrize(
    ("config", "metric", "chance"),
    [
        (CHOICE, "acc_norm", 0.25),
        (CHOICE | {"metadata": {"chance": {"acc_norm": 0.3}}}, "acc_norm", 0.3),
        (CHOICE | {"metadata": {"chance": 0.1, "headline_metric": "acc"}}, "acc", 0.1),
        (CHOICE | {"process_results": "utils.f"}, "acc_norm", None),
        (FREE, "f1", None),
        (FREE | {"metadata": {"headline_metric": "exact_match"}}, "exact_match", 0.0),
    ],
)
def test_the_list_of_tasks_and_a_run_agree_on_metric_and_chance(config, metric, chance):
    """What the Tasks page shows of a task is what its finished run is judged by."""
    row = index_builder.task_row("t", config, "t.yaml")
    names = [entry["metric"] for entry in config["metric_list"]]
    lines = [line(config, doc_id, dict.fromkeys(names, 1.0)) for doc_id in range(3)]

    assert (row.metric, row.chance) == (metric, chance)
    assert metrics.headline_metric(config, names) == metric
    assert metrics.mean_chance(config, metric, lines) == pytest.approx(chance, abs=1e-12)
    answers = results.answers_frame("t", lines, {f"{n},none": n for n in names}, config)
    stored = row_dicts(answers[answers["metric"] == metric])
    assert [document["chance"] for document in stored] == [chance] * 3


def test_a_metrics_filter_is_a_part_of_its_name():
    """`exact_match,strict` alone or beside `exact_match,loose`; `acc` is `acc,none`."""
    keys = ["exact_match,strict", "exact_match,loose", "f1,none"]
    assert metrics.short_names(keys[:1]) == {keys[0]: keys[0]}
    assert list(metrics.short_names(keys).values()) == [*keys[:2], "f1"]
    assert (
        metrics.headline_metric({"metadata": {"headline_metric": "exact_match"}}, keys) == keys[0]
    )
    assert metrics.headline_metric({}, []) is None


def test_a_headline_that_the_task_does_not_have_is_refused_with_its_metrics():
    """The message names the metrics to choose from."""
    config = {"metadata": {"headline_metric": "rouge"}}

    with pytest.raises(BadInput, match="'rouge', but its metrics are acc, f1"):
        metrics.check_headline("t", config, ["acc", "f1"])
    metrics.check_headline("t", config, [])
    metrics.check_headline("t", {}, ["acc"])
