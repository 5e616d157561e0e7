"""Memory and time of a large corpus: read, tokenise, and read blocks in random order.

    python benchmarks/corpus_memory.py --megabytes 1000

The file is the starter corpus again and again, each time in another order and with a number before
each document. Prints one JSON line. Memory is the peak of the process above what the tokenizer and
the libraries take; a second run on the same work folder shows what a sweep's next run takes.
"""

import argparse
import json
import random
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from explorer.distill import corpus, token_file
from explorer.models.loading import load_tokenizer


def make_corpus(path: Path, megabytes: float) -> None:
    """Write JSON Lines of about this size."""
    texts = list(corpus.read_corpus("starter").documents())
    draw = random.Random(0)
    num_bytes = 0
    with path.open("w", encoding="utf-8") as file:
        while num_bytes < megabytes * 1e6:
            draw.shuffle(texts)
            for text in texts:
                num_bytes += file.write(json.dumps({"text": f"{draw.random():.6f} {text}"}) + "\n")


def peak_megabytes() -> float:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=float, default=100)
    parser.add_argument("--work", type=Path, help="keeps the corpus and its tokens")
    parser.add_argument("--budget", type=int, default=10**9, help="tokens; the default reads all")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = arguments.work or Path(folder)
        work.mkdir(parents=True, exist_ok=True)
        path = work / f"{arguments.megabytes:g}.jsonl"
        if not path.exists():
            make_corpus(path, arguments.megabytes)
        tokenizer = load_tokenizer("starter")
        tokenizer("warm up")
        before = peak_megabytes()
        seconds: dict[str, float] = {}

        @contextmanager
        def timed(name: str) -> Iterator[None]:
            began = time.monotonic()
            yield
            seconds[name] = round(time.monotonic() - began, 1)

        with timed("read"):
            text = corpus.read_corpus(str(path), arguments.budget)
        with timed("tokenise"):
            tokens_path = work / f"{token_file.token_key(text, tokenizer)}.bin"
            tokens = token_file.ensure_tokens(text, tokenizer, tokens_path, 256)
        with timed("read_blocks"):
            numbers = corpus.split_heldout(len(tokens), 24, 0)[1]
            for start in range(0, len(numbers), 8):
                tokens[numbers[start : start + 8]]
        print(
            json.dumps(
                {
                    "megabytes": round(path.stat().st_size / 1e6),
                    "tokens": tokens.num_tokens,
                    "seconds": seconds,
                    "memory_before_mb": round(before),
                    "memory_added_mb": round(peak_megabytes() - before),
                }
            )
        )


if __name__ == "__main__":
    main()
