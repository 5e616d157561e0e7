"""Where the starter suite's documents come from: the JSONL files beside this one.

lm-eval calls `load` through `custom_dataset: !function data.load`, because a
relative path in `data_files` would depend on the working directory. The
documents stay in memory: no network, no cache folder.

    lm_eval run --tasks starter --include_path explorer/tasks/starter --model dummy
"""

import json
from pathlib import Path

import datasets


# lm-eval puts this function's source into every task's configuration, which is part of the key of
# stored answers: a change here evaluates everything again. It splits at line ends that JSON need
# not escape (U+2028), so documents are written with all of them escaped.
def load(*, file: str, **_metadata: object) -> datasets.DatasetDict:
    """The documents of one task, as its `test` split.

    Args:
        file: Name of a JSONL file in this folder, from `dataset_kwargs`.
        **_metadata: lm-eval also passes the task's and the caller's metadata.
    """
    text = (Path(__file__).parent / file).read_text(encoding="utf-8")
    documents = [json.loads(line) for line in text.splitlines()]
    return datasets.DatasetDict({"test": datasets.Dataset.from_list(documents)})
