"""A task whose data come from Python code beside it, which leaves ran.txt when it runs."""

from pathlib import Path

import yaml

TASK = {
    "task": "quiz",
    "test_split": "test",
    "output_type": "multiple_choice",
    "doc_to_text": "{{question}}",
    "doc_to_choice": ["a", "b"],
    "doc_to_target": 0,
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
}
CODE = """
import pathlib

import datasets

pathlib.Path(__file__).with_name("ran.txt").write_text("MARK", encoding="utf-8")


def load(**options):
    return {"test": datasets.Dataset.from_list([{"question": "q"}])}
"""


def write(folder: Path) -> Path:
    """Make the folder of the task `quiz`: quiz.yaml and quiz_code.py."""
    folder.mkdir()
    (folder / "quiz_code.py").write_text(CODE, encoding="utf-8")
    text = yaml.safe_dump(TASK) + "custom_dataset: !function quiz_code.load\n"
    (folder / "quiz.yaml").write_text(text, encoding="utf-8")
    return folder
