"""lm-eval's own command line, with our faster back end among its models."""

import os
import sys

import typer

from explorer.cli.common import app


@app.command(
    "lm-eval",
    # lm-eval reads its own options, --help included.
    context_settings={
        "allow_extra_args": True,
        "ignore_unknown_options": True,
        "help_option_names": [],
    },
)
def lm_eval(context: typer.Context) -> None:
    """Run lm-eval's command line with our faster back end.

    The back end is the model explorer-hf; lm-eval reads all options.

    Example: explorer lm-eval run --model explorer-hf --model_args pretrained=starter
    --tasks starter --include_path explorer/tasks/starter
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from lm_eval.__main__ import cli_evaluate

    from explorer.evaluate.backends import prefix_lm

    prefix_lm.register()
    before = sys.argv
    sys.argv = ["lm-eval", *context.args]
    try:
        cli_evaluate()
    finally:
        sys.argv = before
