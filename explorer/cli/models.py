"""Commands that use one model: synthesise, convert."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from explorer import paths, specs
from explorer.cli.common import app, console
from explorer.errors import BadInput
from explorer.store import disk

TrustRemoteCode = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code", help="Run the model's own code, if allowed: explorer trust."
    ),
]


@app.command()
def synthesise(
    teacher: Annotated[
        str, typer.Argument(help="A chat model: starter, a folder, a hub id, run:RUN_ID.")
    ] = "starter",
    out: Annotated[Path, typer.Option("--out", "-o", help="The .jsonl file to write.")] = Path(
        "corpus.jsonl"
    ),
    tokens: Annotated[int, typer.Option(min=1, help="Tokens to write.")] = 300_000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the sampling.")] = 0,
    temperature: Annotated[float, typer.Option(min=0.05, max=5, help="Of the sampling.")] = 0.9,
    top_k: Annotated[int, typer.Option(min=1, help="Sample from the k most likely tokens.")] = 50,
    document_tokens: Annotated[int, typer.Option(min=8, help="Tokens per document.")] = 256,
    batch_size: Annotated[int, typer.Option(min=1, help="Documents written at once.")] = 128,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Have a chat model write a distillation corpus."""
    from explorer.catalogue import terms
    from explorer.cli.progress_bar import stage_bar
    from explorer.distill.synthesise import synthesise as write_corpus
    from explorer.models.loading import load

    if clause := terms.training_terms(teacher, terms.licence_of(teacher, paths.store_root())):
        print(clause.in_words(teacher), file=sys.stderr)
    with stage_bar(console) as bar:
        bar({"stage": "load", "done": 0, "total": 0})
        recipe = write_corpus(
            load(_model(teacher), device="auto", trust_remote_code=trust_remote_code),
            out,
            num_tokens=tokens,
            document_tokens=document_tokens,
            batch_size=batch_size,
            temperature=temperature,
            top_k=top_k,
            seed=seed,
            progress=lambda done, total: bar(
                {"stage": "synthesise", "done": done, "total": total, "unit": "tokens"}
            ),
        )
    console.print(
        f"Wrote {recipe['num_documents']} documents to {out}, and the settings to a file beside it."
    )


@app.command()
def convert(
    model: Annotated[str, typer.Argument(help="A model: starter, a folder, a hub id, run:RUN_ID.")],
    out: Annotated[Path, typer.Argument(help="The .gguf file to write.")],
    to: Annotated[
        specs.GgufType, typer.Option("--to", help="Number format; q4_k_m needs llama.cpp.")
    ] = "q8_0",
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Write a model as GGUF, for llama.cpp and tools built on it."""
    model = _model(model)
    if out.exists() and not force:
        raise BadInput(f"{out} exists. Choose another name, or add --force to overwrite it.")
    from explorer.latency.runtimes.gguf_check import write_checked
    from explorer.models.gguf.gguf_facts import gguf_facts
    from explorer.models.loading import load

    loaded = load(model, device="cpu", dtype="float32", trust_remote_code=trust_remote_code)
    write_checked(loaded, to, out)
    facts = gguf_facts(model, out)
    console.print(
        f"Wrote {out}: {out.stat().st_size:,} bytes, {facts.num_layers} layers, {facts.dtype}. "
        f"To measure it, write teacher: llamacpp:{out} in a spec.",
        markup=False,
    )


def _model(name: str) -> str:
    """A model's name; the run id in `run:RUN_ID` may be a unique beginning."""
    if not name.startswith("run:"):
        return name
    return f"run:{disk.resolve_run_id(paths.store_root(), name.removeprefix('run:'))}"
