"""What a record keeps of a GGUF file, from its header; no weights are loaded."""

import hashlib
from pathlib import Path

from gguf import GGUFReader, LlamaFileType

from explorer.errors import UnknownModel
from explorer.models.gguf.convert import KEPT_KEY
from explorer.records import ModelFacts


def gguf_facts(name: str, path: Path) -> ModelFacts:
    """The facts of a model that llama.cpp runs from this file.

    `weight_bytes` is the size of the tensors as stored, `dtype` the file's number format, such as
    q4_k_m, and the fingerprint covers the whole file.

    Raises:
        UnknownModel: It is not a GGUF file.
    """
    try:
        reader = GGUFReader(path)
    except (OSError, ValueError) as error:
        raise UnknownModel(f"{path} is not a GGUF file: {error}") from error
    fields = reader.fields

    def number(key: str) -> int:
        return int(fields[f"{architecture}.{key}"].contents())

    architecture = str(fields["general.architecture"].contents())
    kind = LlamaFileType(int(fields["general.file_type"].contents())).name
    # Tables of rotary frequencies are not parameters.
    weights = [tensor for tensor in reader.tensors if not tensor.name.startswith("rope")]
    kept_layers = fields.get(KEPT_KEY)
    return ModelFacts(
        name=name,
        fingerprint=fingerprint(path),
        architecture=f"llama.cpp {architecture}",
        num_parameters=sum(int(tensor.n_elements) for tensor in weights),
        num_layers=number("block_count"),
        hidden_size=number("embedding_length"),
        vocab_size=len(fields["tokenizer.ggml.tokens"].data),
        context_tokens=number("context_length"),
        dtype=kind.removeprefix("MOSTLY_").removeprefix("ALL_").lower(),
        weight_bytes=sum(int(tensor.n_bytes) for tensor in weights),
        kept_layers=[int(layer) for layer in kept_layers.contents()] if kept_layers else None,
    )


def fingerprint(path: Path) -> str:
    """Sixteen hex digits over the whole file: weights, number format and tokenizer."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
