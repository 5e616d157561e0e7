"""The columns of a table of runs: what each means, and what kind of value it holds.

This is the only list. Frames, exports and the notes of a spreadsheet are made from it, and a test
holds `docs/columns.md` against it.
"""

import dataclasses
import re
from typing import Literal

TEXT: Literal["text"] = "text"
FLAG: Literal["flag"] = "flag"
LIST: Literal["list"] = "list"
COUNT: Literal["count"] = "count"
"""A whole number that is never missing."""


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of a table of runs. Units end its name."""

    meaning: str
    """In Markdown."""
    kind: Literal["number", "count", "text", "flag", "list"] = "number"
    timed: bool = False
    """Whether the timing measured it, so that it says little if the machine was busy."""

    def plain_meaning(self) -> str:
        """The meaning without Markdown."""
        return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", self.meaning).replace("`", "")


RECORD: dict[str, Column] = {
    "run_id": Column("name and hash of the spec; the folder in `results/`", TEXT),
    "name": Column("the spec's name", TEXT),
    "status": Column("`finished`, `failed` or `cancelled`", TEXT),
    "role": Column("`teacher` or `student`", TEXT),
    "kind": Column(
        "how the student was made: `depth`, `width`, `both`, `checkpoint`, `fresh`; missing "
        "for a teacher",
        TEXT,
    ),
    "basis": Column(
        "`measured` here, or `imported` from files that lm-eval, and perhaps a timing tool, "
        "wrote elsewhere",
        TEXT,
    ),
    "teacher": Column("the teacher's name, as the spec says it", TEXT),
    "teacher_run_id": Column(
        "the run that measured this student's teacher; missing for a teacher",
        TEXT,
    ),
    "teacher_licence": Column(
        "licence of the teacher, as its files or the catalogue state it", TEXT
    ),
    "model": Column(
        "name of the model that was measured: a student's own, and an import's as its files "
        "name it",
        TEXT,
    ),
    "label": Column("short name on the chart", TEXT),
    "started_at": Column("UTC, ISO 8601", TEXT),
    "finished_at": Column("UTC, ISO 8601", TEXT),
    "device": Column("the kind of device: `cpu`, or an accelerator's as torch names it", TEXT),
    "device_name": Column("the GPU, or the processor and its cores, as prices know it", TEXT),
    "num_cpus": Column("cores of the machine"),
    "memory_bytes": Column("memory of the machine"),
    "commit": Column("the explorer's commit, with `+changes` when the tree was not clean", TEXT),
    "num_layers": Column("layers of the model"),
    "num_parameters": Column("weights of the model"),
    "weight_bytes": Column("bytes of the weights in memory, at this dtype"),
    "dtype": Column(
        "number format of the weights while measured; `int8 + float32` where the linear ones "
        "are quantised",
        TEXT,
    ),
    "fingerprint": Column("sixteen hex digits over weights, tokenizer and dtype", TEXT),
    "kept_layers": Column("the teacher's layers that the student keeps, counted from 0", LIST),
    "lm_eval_version": Column("version of lm-evaluation-harness", TEXT),
    "ttft_ms": Column("median time to the first token, ms", timed=True),
    "tpot_ms": Column("median time per output token after the first, ms", timed=True),
    "latency_ms": Column("median time to the last token, ms", timed=True),
    "output_tokens_per_s": Column(
        "median output throughput of a turn, all sequences of the batch together, time to "
        "first token included",
        timed=True,
    ),
    "ttft_p95_ms": Column("95th percentile of the TTFT; missing below 20 turns", timed=True),
    "tpot_p95_ms": Column("95th percentile of the TPOT; missing below 20 turns", timed=True),
    "latency_p95_ms": Column("95th percentile of the latency; missing below 20 turns", timed=True),
    "tpot_spread": Column("noise: the interquartile range of TPOT over its median", timed=True),
    "tpot_low_ms": Column(
        "lower end of the 95 % interval of the median TPOT; missing below 6 turns",
        timed=True,
    ),
    "tpot_high_ms": Column("upper end of the same", timed=True),
    "teacher_ttft_ms": Column(
        "the teacher's median, taken in turns with the student's, ms",
        timed=True,
    ),
    "teacher_tpot_ms": Column(
        "the teacher's median, taken in turns with the student's, ms",
        timed=True,
    ),
    "teacher_latency_ms": Column(
        "the teacher's median, taken in turns with the student's, ms",
        timed=True,
    ),
    "ttft_ratio": Column(
        "median over turns of student's TTFT / teacher's; below 1 is faster",
        timed=True,
    ),
    "tpot_ratio": Column(
        "median over turns of student's TPOT / teacher's; below 1 is faster",
        timed=True,
    ),
    "ttft_ratio_low": Column(
        "lower end of the 95 % interval of `ttft_ratio`; missing below 6 turns",
        timed=True,
    ),
    "ttft_ratio_high": Column("upper end of the same", timed=True),
    "tpot_ratio_low": Column(
        "lower end of the 95 % interval of `tpot_ratio`; missing below 6 turns",
        timed=True,
    ),
    "tpot_ratio_high": Column("upper end of the same", timed=True),
    "runtime": Column(
        "what ran the model: transformers eager or compiled, llama.cpp, endpoint, or a server that "
        "the run started, such as vLLM server",
        TEXT,
    ),
    "server_arguments": Column(
        "the arguments that the spec gave to that server; runs with others are no baseline",
        TEXT,
    ),
    "load_s": Column(
        "seconds from the files to a model on its device; of a server, until it was healthy",
        timed=True,
    ),
    "disk_bytes": Column("size of the files with the weights"),
    "joules_per_token": Column(
        "energy per output token, idle subtracted; missing if the device has no counter",
        timed=True,
    ),
    "num_failed_requests": Column("requests that failed at an endpoint; the times exclude them"),
    "batch_size": Column("sequences answered together in the timing"),
    "prompt_tokens": Column("length of the timed prompt, for which `usd_per_mtok` holds"),
    "output_tokens": Column("length of the timed answer, for which `usd_per_mtok` holds"),
    "peak_memory_bytes": Column(
        "highest memory while timed: of the process (CPU) or the device (accelerator)",
        timed=True,
    ),
    "latency_warning": Column("the warning if other processes used the machine", TEXT),
    "machine_busy": Column(
        "whether [the machine was busy](measure.md#was-the-machine-quiet) while this was "
        "timed, so that no conclusion uses its times; false if nothing was timed",
        FLAG,
    ),
    "busy_share_before": Column(
        "share of all processors' time that other processes took just before the timing; "
        "missing in older records"
    ),
    "busy_share_during": Column(
        "the same while it was timed; missing for a server on this machine",
    ),
    "busy_threshold": Column("share above which the machine counts as busy"),
    "busy_gpu_share_before": Column(
        "share of the time in which the GPU computed just before the timing; missing without a GPU"
    ),
    "busy_gpu_threshold": Column("share above which the GPU counts as busy"),
    "num_other_gpu_processes": Column(
        "other processes that held the GPU; one is enough to be busy",
    ),
    "distilled": Column("whether the student was trained after the cut", FLAG),
    "scored_tokens": Column("positions that the student was trained on, repetitions included"),
    "train_seconds": Column("training alone, without waiting and interruptions, s"),
    "device_hours": Column("hours of the device for the training"),
    "targets_seconds": Column("the teacher's pass over the corpus, s; all students share one pass"),
    "kl_before": Column("held-out KL(teacher ‖ student) before training, nats per token"),
    "kl_after": Column("the same after training"),
    "top1_before": Column(
        "share of held-out positions with the same most likely token, before training",
    ),
    "top1_after": Column("the same after training"),
    "corpus": Column("the corpus that it was trained on", TEXT),
    "method": Column(
        "teacher signal of the training: `cached`, `live` or `text`; `labels` is the control arm",
        TEXT,
    ),
    "train_dtype": Column(
        "number format of the matrix products in training; the weights were float32",
        TEXT,
    ),
    "vocab_sample": Column(
        "tokens sampled at each step to stand for the rest of the vocabulary; missing if the "
        "student trained on all"
    ),
    "recipe": Column(
        "hash of student, training and evaluation; equal for runs that differ only in the seed",
        TEXT,
    ),
    "arm": Column(
        "the `recipe` of the run's control arm; its own `recipe` if the run is a control arm",
        TEXT,
    ),
    "format": Column(
        "the number format that the model was converted to, such as `q8_0` or `int8`; missing "
        "if it was not converted",
        TEXT,
    ),
    "error": Column("why the run failed", TEXT),
    "task_scores": Column(
        'score of each task as JSON, `{"task": score}`, by the metric that represents the task; '
        "missing without an evaluation",
        TEXT,
    ),
}
"""What `frames.runs` reads from a record, in the order of the export."""
RETENTION: dict[str, Column] = {
    "retention": Column(
        "chance-corrected share of the teacher's capability, mean over tasks; 1 is the teacher"
    ),
    "retention_low": Column("lower end of its 95 % interval"),
    "retention_high": Column("upper end of its 95 % interval"),
    "raw_ratio": Column(
        "student's score / teacher's, mean over tasks, without correction for guessing",
    ),
    "raw_low": Column("lower end of its 95 % interval"),
    "raw_high": Column("upper end of its 95 % interval"),
    "num_tasks": Column("tasks that count in the mean", COUNT),
    "num_documents": Column("documents of these tasks, answered by both models", COUNT),
    "excluded_tasks": Column("which tasks were left out, and why", TEXT),
}
"""The capability kept, which is computed when reading."""
COST: dict[str, Column] = {
    "usd_per_hour": Column("the device's price, dollars per hour"),
    "usd_per_mtok": Column(
        "US dollars per million output tokens at `utilisation`, time to first token included, "
        "for requests of `prompt_tokens` and `output_tokens`; the one number that all pages, "
        "commands and exports show ([formula](measure.md#cost))"
    ),
    "output_tokens_per_usd": Column(
        "output tokens for one US dollar: a million over `usd_per_mtok`, at the same `utilisation`"
    ),
    "utilisation": Column(
        "share of the paid hours in which the device is busy, at which `usd_per_mtok` is "
        "stated; 0.5 unless `--utilisation` or the slider says otherwise"
    ),
    "usd_per_hour_at_load": Column(
        "price times the share of the device that the load of the run's teacher needs; the "
        "same at any utilisation"
    ),
    "price_note": Column("where the price is from and when it was seen, or what is missing", TEXT),
}
"""The cost, which depends on a price and is computed when reading."""
