"""Refuses a model whose weights are not those that its configuration describes.

transformers gives random values to a weight that no file has, and drops one that it does not
know. Here both are errors that name the weights, and so are other shapes, NaN and infinity.
"""

import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from gguf import MODEL_ARCH_NAMES, get_tensor_name_map
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from explorer.errors import BadInput, UnknownModel
from explorer.models import weight_files
from explorer.models.gguf import header
from explorer.models.quantize import stored_tensors
from explorer.models.weight_files import StoredTensor, listed

log = logging.getLogger("explorer")

TORCH_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}


def refuse_differences(name: str, report: Mapping[str, Any]) -> None:
    """Refuse a model whose files have other weights than it.

    Args:
        name: The model, for the message.
        report: As `from_pretrained` returns it with `output_loading_info`.

    Raises:
        UnknownModel: Weights are missing, unexpected or of another shape; the message names them.
    """
    problems = []
    if missing := report["missing_keys"]:
        hint = ""
        if all("head" in key or key.startswith("embed_out") for key in missing):
            hint = " (if the head is the embedding, its config needs tie_word_embeddings: true)"
        problems.append(f"{_count(missing)} missing: {listed(missing)}{hint}")
    if unexpected := report["unexpected_keys"]:
        problems.append(f"{_count(unexpected)} unexpected: {listed(unexpected)}")
    if mismatched := report["mismatched_keys"]:
        shapes = [
            f"{key} is {_shape(stored)} and should be {_shape(expected)}"
            for key, stored, expected in mismatched
        ]
        problems.append(f"{_count(mismatched)} of another shape: {listed(shapes)}")
    if problems:
        raise UnknownModel(
            f"The files of {name} do not have the weights that its configuration describes: "
            f"{'; '.join(problems)}. Save or download the model again, or correct its config.json."
        )


def compare_on_meta(
    name: str, model: PreTrainedModel, tensors: Mapping[str, StoredTensor]
) -> PreTrainedModel:
    """Load a model from headers alone, as transformers would; takes no memory.

    Args:
        name: The model, for the message.
        model: The model of its configuration, on torch's meta device.
        tensors: What its files hold.

    Returns:
        The model as its files describe it, on the meta device.

    Raises:
        UnknownModel: As `refuse_differences`.
    """
    refuse_missing_experts(name, tensors)
    state = {
        key: torch.empty(tensor.shape, dtype=TORCH_DTYPES.get(tensor.dtype), device="meta")
        for key, tensor in tensors.items()
    }
    read: Any = type(model).from_pretrained(
        None,
        config=model.config,
        state_dict=state,
        device_map="meta",
        ignore_mismatched_sizes=True,
        output_loading_info=True,
    )
    loaded: PreTrainedModel
    loaded, report = read
    refuse_differences(name, report)
    return loaded


def refuse_missing_experts(name: str, tensors: Collection[str]) -> None:
    """Refuse experts that lack weights; transformers stacks them and cannot say which.

    Raises:
        UnknownModel: The message names the weights.
    """
    missing = weight_files.missing_experts(tensors)
    if missing:
        refuse_differences(
            name,
            {"missing_keys": missing, "unexpected_keys": (), "mismatched_keys": ()},
        )


def refuse_unused(name: str, model: PreTrainedModel, shapes: Mapping[str, Any]) -> None:
    """Refuse a GGUF file with tensors that transformers did not read into the model.

    It drops them without a word, so a bias or a norm of a newer variant would be lost.

    Args:
        name: The model, for the message.
        model: As loaded from the file.
        shapes: The shape of each tensor of the file, by its name in GGUF.

    Raises:
        UnknownModel: The message names the tensors.
    """
    stored, held = header.count_parameters(shapes), model.num_parameters()
    architecture = next(
        (key for key, value in MODEL_ARCH_NAMES.items() if value == _gguf_name(model)), None
    )
    if stored == held or architecture is None:
        return
    names = get_tensor_name_map(architecture, int(model.config.get_text_config().num_hidden_layers))
    known = {names.get_name(key, try_suffixes=(".weight", ".bias")) for key in model.state_dict()}
    unused = [
        key
        for key in shapes
        # Experts are stacked, and so have other names in the model.
        if key not in known and "_exps." not in key and not key.startswith("rope")
    ]
    if unused:
        refuse_differences(
            name, {"missing_keys": (), "unexpected_keys": unused, "mismatched_keys": ()}
        )


def _gguf_name(model: PreTrainedModel) -> str:
    """llama.cpp's name of an architecture."""
    kind = str(model.config.model_type).removesuffix("_text")
    return {"cohere": "command-r", "mistral": "llama"}.get(kind, kind.replace("_moe", "moe"))


def follow_head(name: str, model: PreTrainedModel) -> None:
    """Make the configuration say what the loaded weights are: one embedding, or a head besides.

    A file can have a head of its own although its configuration marks it as tied. transformers
    loads such a head; students, GGUF files and saved models follow the configuration.
    """
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    configs = (model.config, model.config.get_text_config())
    if head is None or head.weight is embedding.weight:
        return
    if any(getattr(config, "tie_word_embeddings", False) for config in configs):
        log.warning(
            "The configuration of %s says that its head is the embedding, but its files have a "
            "head of its own. The files count.",
            name,
        )
        for config in configs:
            config.tie_word_embeddings = False


def refuse_non_finite(name: str, model: PreTrainedModel) -> None:
    """Refuse weights that are not numbers.

    Raises:
        UnknownModel: The message names the weights with NaN or infinity.
    """
    wrong = [
        key
        for name_of_weight, weight in model.named_parameters()
        for key, stored in stored_tensors(name_of_weight, weight)
        if stored.is_floating_point() and stored.numel() and not _is_finite(stored)
    ]
    if wrong:
        raise UnknownModel(
            f"{_count(wrong)} of {name} {'holds' if len(wrong) == 1 else 'hold'} NaN or infinity: "
            f"{listed(wrong)}. Such a model answers nothing; save or download it again."
        )


def _is_finite(weight: torch.Tensor) -> bool:
    low, high = torch.aminmax(weight.detach())
    return bool(torch.isfinite(low) and torch.isfinite(high))


def num_embedding_rows(model: PreTrainedModel) -> int:
    """Rows of a model's embedding, one for each token id from 0 up."""
    embedding: Any = model.get_input_embeddings()
    return int(embedding.weight.shape[0])


def tokens_beyond(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> dict[str, int]:
    """Tokens of the tokenizer for which the embedding has no row, with their ids."""
    num_rows = num_embedding_rows(model)
    return {token: index for token, index in tokenizer.get_vocab().items() if index >= num_rows}


def beyond_warnings(
    name: str, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel
) -> list[str]:
    """Whether the tokenizer has tokens without a row, in words."""
    beyond = tokens_beyond(tokenizer, model)
    if not beyond:
        return []
    num_rows = num_embedding_rows(model)
    return [
        f"The tokenizer of {name} has {max(beyond.values()) + 1:,} tokens, but its embedding has "
        f"{num_rows:,} rows. Texts with {listed(beyond)} will be refused."
    ]


def guard_rows(name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse texts with a token for which the embedding has no row, when the model reads one.

    Such a token is not used to pad, either.
    """
    beyond = tokens_beyond(tokenizer, model)
    if not beyond:
        return
    num_rows = num_embedding_rows(model)
    log.warning("%s", beyond_warnings(name, tokenizer, model)[0])
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id >= num_rows:
        tokenizer.pad_token = tokenizer.eos_token

    def refuse(_: Any, args: tuple[torch.Tensor, ...]) -> None:
        if args and args[0].numel() and int(args[0].max()) >= num_rows:
            token = tokenizer.convert_ids_to_tokens(int(args[0].max()))
            raise BadInput(beyond_refusal(name, "A text", str(token), beyond, num_rows))

    embedding: Any = model.get_input_embeddings()
    embedding.register_forward_pre_hook(refuse)


def beyond_refusal(
    name: str, where: str, token: str, beyond: Mapping[str, int], num_rows: int
) -> str:
    """Why a text with a token without a row is refused, and what to do."""
    num_tokens = max(beyond.values()) + 1
    return (
        f"{where} has the token {token}, but {name} cannot read it: its tokenizer has "
        f"{num_tokens:,} tokens and its embedding {num_rows:,} rows. Remove the token from the "
        f"text, or give the model a row for it: model.resize_token_embeddings({num_tokens})."
    )


def stored_tensors_of(folder: Path) -> dict[str, StoredTensor]:
    """The tensors in a folder's files.

    Raises:
        UnknownModel: Files are missing or damaged.
    """
    tensors = weight_files.read_tensors(folder)
    refuse_missing_experts(str(folder), tensors)
    return tensors


def _count(keys: Collection[Any]) -> str:
    return "1 weight" if len(keys) == 1 else f"{len(keys):,} weights"


def _shape(shape: Collection[int]) -> str:
    return " x ".join(f"{length:,}" for length in shape) or "a single number"
