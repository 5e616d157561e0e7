"""What a record keeps of a GGUF model, from its headers; no weights are loaded."""

import hashlib
from pathlib import Path

from gguf import GGUFReader, LlamaFileType

from explorer.errors import UnknownModel
from explorer.models.gguf import gguf_files
from explorer.models.gguf.layouts import KEPT_KEY
from explorer.records import ModelFacts


def gguf_facts(name: str, path: Path) -> ModelFacts:
    """The facts of a model that llama.cpp runs from this file, or from it and its other parts.

    `weight_bytes` is the size of the tensors as stored, `dtype` the number format, such as q4_k_m,
    and the fingerprint covers all files.

    Raises:
        UnknownModel: It is not a GGUF file, or a part is missing or damaged.
    """
    files = gguf_files.read_files(path)
    try:
        readers = [GGUFReader(part) for part in files.paths]
        fields = readers[0].fields
        architecture = str(fields["general.architecture"].contents())

        def number(key: str) -> int:
            return int(fields[f"{architecture}.{key}"].contents())

        kind = LlamaFileType(int(fields["general.file_type"].contents())).name
        # Tables of rotary frequencies are not parameters.
        weights = [
            tensor
            for reader in readers
            for tensor in reader.tensors
            if not tensor.name.startswith("rope")
        ]
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
    except (OSError, ValueError, IndexError) as error:
        raise UnknownModel(f"{path} is not a GGUF model: {error}") from error
    except KeyError as error:
        raise UnknownModel(f"{path} is not a GGUF model: its header lacks {error}.") from error


def fingerprint(path: Path) -> str:
    """Sixteen hex digits over all files: weights, number format and tokenizer."""
    digest = hashlib.sha256()
    for part in gguf_files.read_files(path).paths:
        with part.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:16]
