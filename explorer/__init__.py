"""Distill Explorer: how small can this model get, and what do we save?

pages/             dashboard: explore, run, tasks, compare, answers, published, economics, shared
cli/               the commands, a module a group
jobs/              the queue: submit, watch, cancel and resume runs on Ray
search/            successive halving over variants of a run
pipeline/          a run, stage by stage, from its spec to its record
students/          student architectures: fewer layers, narrower layers, random weights
distill/           training: corpus, teacher cache, losses, the loop, several processes
evaluate/          capability by lm-evaluation-harness; backends/ answer its requests
latency/           TTFT, TPOT, load, memory, energy; runtimes/ and servers/ run the model
models/            names, weights, sizes and quantisation of models; gguf/ for llama.cpp
devices/           the CPU or accelerator of a run: what it can do, its memory and counters
tasks/             the task index, custom tasks, presets and the starter/ suite
consent/           what this user allowed, outside every store: code that may run, keys of hosts
analysis/          pure functions on frames: stats/ cost/ pick/ planning/ published/ tables/
index/             one SQLite file that answers what pages and commands ask of a store
charts/            Plotly figures and their export
catalogue/         published facts with dates and sources: models, scores, prices, devices
lm_eval_io/        lm-eval's result files, read and written
store/             the results folder
records/           what a run leaves, versioned
specs/             what a run is asked
processes/         processes beside our own: they end with it, have limits, run our commands
files/             files that a kill leaves whole, and text and YAML that people bring
paths.py           the folders that we write to
errors.py          errors that say what to do
__main__.py        the entry point of `explorer` and `python -m explorer`
"""

import logging

__version__ = "0.1.0"

# transformers imports torchao where it is installed; torchao then warns of each kernel for GPUs
# that this machine lacks, and torch of how torchao's types are registered.
for _name in ("torchao", "torch.utils._pytree"):
    logging.getLogger(_name).setLevel(logging.ERROR)
