"""What can be known of a model before its weights are read, in about a second.

Its files are held against the model that its configuration describes, built on torch's meta device
and loaded from the files' headers by transformers itself. Nothing is downloaded.

    python -c "from explorer.models import check; print(check.check_model('FOLDER'))"
"""

from pathlib import Path
from typing import Any

from explorer.errors import BadInput, UnknownModel
from explorer.models import endpoint, sizes, weight_checks
from explorer.models.facts import model_without_weights
from explorer.models.gguf import gguf_files
from explorer.models.loading import load_tokenizer, locate, quiet_transformers
from explorer.models.output_head import check_reads_forward

LLAMA_CPP = "llamacpp:"


def check_model(
    name: str, *, trust_remote_code: bool = False, block_tokens: int | None = None
) -> list[str]:
    """Refuse a model that could not be loaded or trained as it is.

    Args:
        name: Any model name. Models behind endpoints, and hub ids that were never downloaded, pass.
        trust_remote_code: Whether the model's own code may run.
        block_tokens: Length of the blocks that it will be trained on; None for no training.

    Returns:
        Warnings, a sentence each.

    Raises:
        UnknownModel: Files are missing or damaged, weights are missing, unexpected or of another
            shape, the model needs code of its own that may not run, or it is not causal.
        BadInput: The blocks are longer than the model's positions.
    """
    if name.startswith(endpoint.PREFIX) or name == "starter":
        return []
    if name.startswith(LLAMA_CPP):
        gguf_files.read_files(Path(name.removeprefix(LLAMA_CPP)).expanduser())
        return []
    source = locate(name)
    if source.gguf_file:
        gguf_files.read_files(Path(source.path) / source.gguf_file)
        return []
    folder = source.folder or sizes.folder_of(name)
    if folder is None:
        return []
    try:
        tensors = weight_checks.stored_tensors_of(folder)
    except UnknownModel:
        if source.folder:
            raise
        return []  # a download that was never finished
    model = model_without_weights(name, trust_remote_code=trust_remote_code)
    # The names of quantised weights are not those of the model.
    if not hasattr(model.config, "quantization_config"):
        with quiet_transformers():
            model = weight_checks.compare_on_meta(name, model, tensors)
    check_reads_forward(name, model.config)
    check_positions(name, model.config, block_tokens)
    tokenizer = load_tokenizer(name, trust_remote_code=trust_remote_code)
    return weight_checks.beyond_warnings(name, tokenizer, model)


def check_positions(name: str, config: Any, block_tokens: int | None) -> None:
    """Refuse blocks that are longer than a model's positions.

    Raises:
        BadInput: The message has both numbers.
    """
    positions = num_positions(config)
    if block_tokens and positions and block_tokens > positions:
        raise BadInput(
            f"distill.block_tokens is {block_tokens:,}, but {name} has {positions:,} positions. "
            f"Write block_tokens: {positions} or less."
        )


def num_positions(config: Any) -> int | None:
    """Tokens of the longest text that a model reads; None if its configuration sets no limit."""
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    return positions if isinstance(positions, int) and positions > 0 else None
