"""Models from outside: their files hold what their configuration describes, or are refused."""

import copy
import dataclasses
import json
import shutil

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

from explorer.consent import trust
from explorer.errors import BadInput, CodeNotAllowed, UnknownModel
from explorer.models import check, loading, own_code, sizes, weight_files
from explorer.models.gguf import convert, gguf_facts, gguf_files
from explorer.pipeline import preflight
from explorer.specs import RunSpec
from explorer.store import disk
from tests import merging


@pytest.fixture
def folder(tiny_llama, tmp_path):
    """A tiny Llama's folder that a test may damage."""
    return shutil.copytree(tiny_llama(), tmp_path / "model")


def edit(folder, change):
    """Change a folder's tensors by a function of their dict."""
    path = folder / weight_files.SINGLE
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, {"format": "pt"})


def configure(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def drop_layer(tensors):
    for name in [name for name in tensors if "layers.2." in name]:
        del tensors[name]


def widen(tensors):
    tensors["model.layers.1.mlp.up_proj.weight"] = torch.ones(7, 5)


def add_bias(tensors):
    tensors["model.layers.1.self_attn.q_proj.bias"] = torch.ones(32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop_layer, "9 weights missing: model.layers.2.input_layernorm.weight"),
        (widen, "model.layers.1.mlp.up_proj.weight is 7 x 5 and should be 64 x 32"),
        (add_bias, "1 weight unexpected: model.layers.1.self_attn.q_proj.bias"),
    ],
)
def test_other_weights_than_the_configuration_describes_are_named(folder, change, message):
    """Missing, misshapen and unknown weights: found from headers, and when loading."""
    edit(folder, change)

    for read in (check.check_model, loading.load):
        with pytest.raises(UnknownModel, match=message):
            read(str(folder))


def test_more_layers_in_the_files_than_in_the_configuration_are_an_error(folder):
    """A number in the configuration does not win over the tensors."""
    configure(folder, num_hidden_layers=3)
    with pytest.raises(UnknownModel, match="9 weights unexpected: model.layers.3."):
        check.check_model(str(folder))


def test_a_head_that_no_file_has_is_an_error_unless_it_is_the_embedding(folder):
    """Not marked as tied and without a head: it would be random."""
    assert check.check_model(str(folder)) == []
    configure(folder, tie_word_embeddings=False)
    with pytest.raises(UnknownModel, match=r"lm_head.weight \(if the head is the embedding"):
        check.check_model(str(folder))


def test_a_head_of_its_own_counts_although_the_configuration_calls_it_tied(folder, tmp_path):
    """Loaded, saved again and written as GGUF, the model keeps that head."""
    head = torch.randn(320, 32)
    edit(folder, lambda tensors: tensors.update({"lm_head.weight": head}))

    loaded = loading.load(str(folder))
    loaded.model.save_pretrained(tmp_path / "again")
    convert.to_gguf(loaded, "f16", tmp_path / "model.gguf")

    assert torch.equal(loaded.model.lm_head.weight, head)
    assert torch.equal(load_file(tmp_path / "again/model.safetensors")["lm_head.weight"], head)
    assert "output.weight" in gguf_files.read_files(tmp_path / "model.gguf").shapes


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_numbers_are_named(folder, value):
    """One NaN makes every answer NaN."""
    edit(folder, lambda tensors: tensors["model.norm.weight"].__setitem__(3, value))
    with pytest.raises(UnknownModel, match="NaN or infinity: model.norm.weight"):
        loading.load(str(folder))


def test_an_expert_without_a_weight_is_named():
    """Experts are stacked when loaded, and then no message says which one lacks what."""
    names = [f"layers.1.mlp.experts.{i}.{part}" for i in range(3) for part in ("up", "down")]
    assert weight_files.missing_experts(names) == []
    assert weight_files.missing_experts(set(names) - {names[2]}) == ["layers.1.mlp.experts.1.up"]


@pytest.fixture
def shards(folder):
    """The same model in several files."""
    model = loading.load(str(folder)).model
    (folder / weight_files.SINGLE).unlink()
    model.save_pretrained(folder, max_shard_size="20KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    return folder


def remove_shard(folder):
    sorted(folder.glob("model-*.safetensors"))[1].unlink()


def remove_index(folder):
    (folder / weight_files.INDEX).unlink()


def truncate(folder):
    path = sorted(folder.glob("model-*.safetensors"))[1]
    path.write_bytes(path.read_bytes()[:-10])


def point(folder):
    path = sorted(folder.glob("model-*.safetensors"))[1]
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 99\n")


def name_absent(folder):
    index = json.loads((folder / weight_files.INDEX).read_text())
    first = next(iter(index["weight_map"].values()))
    index["weight_map"]["model.extra.weight"] = first
    (folder / weight_files.INDEX).write_text(json.dumps(index))


def duplicate(folder):
    first, second, *_ = sorted(folder.glob("model-*.safetensors"))
    save_file(load_file(first) | load_file(second), second, {"format": "pt"})


def second_model(folder):
    first = sorted(folder.glob("model-*.safetensors"))[0]
    shutil.copy(first, folder / weight_files.SINGLE)


def break_index(folder):
    (folder / weight_files.INDEX).write_text('{"weight_map": {"a": "../../b.safetensors"}}')


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove_shard, r"lacks model-00002-of-\d+.safetensors, which model.safetensors.index.json"),
        (remove_index, "no model.safetensors.index.json that names them"),
        (truncate, r"model-00002-of-\d+.safetensors is damaged: its header describes"),
        (point, "Git LFS pointer"),
        (name_absent, "disagree about model.extra.weight"),
        (duplicate, "is in model-00001-of-.* and in model-00002-of"),
        (second_model, "holds two models"),
        (break_index, "index.json is damaged"),
    ],
)
def test_damaged_and_missing_files_are_one_sentence(shards, damage, message):
    """Weights in several files: each way in which a copy breaks is named."""
    assert check.check_model(str(shards)) == []
    damage(shards)
    for read in (check.check_model, loading.load):
        with pytest.raises(UnknownModel, match=message):
            read(str(shards))


def test_pickled_weights_are_refused_with_the_command_that_converts_them(folder):
    """A pickle can run code; the folder is quoted for a shell."""
    folder = folder.rename(folder.with_name("my model"))
    (folder / weight_files.SINGLE).rename(folder / "pytorch_model.bin")
    with pytest.raises(UnknownModel, match=r"pytorch_model.bin\. .*save_pretrained.*my model'$"):
        loading.load(str(folder))


def test_an_adapter_is_refused_with_what_to_do(folder):
    """A LoRA adapter is not a model."""
    (folder / weight_files.SINGLE).unlink()
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(UnknownModel, match="Merge it"):
        check.check_model(str(folder))


def test_a_token_without_a_row_is_noticed_before_anything_runs(folder):
    """The message has the numbers of tokens and of rows."""
    tokenizer = loading.load_tokenizer(str(folder))
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.add_tokens([f"<{i}>" for i in range(320 - len(tokenizer) + 1)])
    tokenizer.save_pretrained(folder)

    (warning,) = check.check_model(str(folder))

    assert "has 321 tokens" in warning
    assert "320 rows" in warning


def test_blocks_longer_than_the_positions_are_refused_with_both_numbers(folder):
    """512 positions."""
    assert check.check_model(str(folder), block_tokens=512) == []
    with pytest.raises(BadInput, match="block_tokens is 513, but .* has 512 positions"):
        check.check_model(str(folder), block_tokens=513)


def test_code_of_its_own_never_asks_on_the_terminal(folder, monkeypatch, tmp_path):
    """Without flag or permission it is one sentence that names what is missing; then it runs."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "c"))
    monkeypatch.setattr("builtins.input", lambda _: pytest.fail("a question on the terminal"))
    (folder / "modeling_own.py").write_text(
        "from transformers import LlamaConfig, LlamaForCausalLM\n\n"
        "class OwnConfig(LlamaConfig):\n    model_type = 'own_kind'\n\n"
        "class OwnForCausalLM(LlamaForCausalLM):\n    config_class = OwnConfig\n"
    )
    own = {"AutoConfig": "OwnConfig", "AutoModelForCausalLM": "OwnForCausalLM"}
    auto_map = {auto: f"modeling_own.{name}" for auto, name in own.items()}
    configure(folder, model_type="own_kind", auto_map=auto_map)

    for read in (check.check_model, loading.load, loading.load_config):
        with pytest.raises(UnknownModel, match="write trust_remote_code: true"):
            read(str(folder))
    for read in (check.check_model, loading.load, loading.load_tokenizer, loading.load_config):
        with pytest.raises(CodeNotAllowed, match=rf"modeling_own\.py.*explorer trust {folder}"):
            read(str(folder), trust_remote_code=True)
    trust.allow(folder, own_code.files_that_run(str(folder)))
    assert check.check_model(str(folder), trust_remote_code=True) == []
    loaded = loading.load(str(folder), trust_remote_code=True)
    assert type(loaded.model).__name__ == "OwnForCausalLM"


@pytest.fixture
def gguf_model(tiny_llama, tmp_path):
    path = tmp_path / "whole.gguf"
    convert.to_gguf(merging.load(tiny_llama(num_layers=2)), "f16", path)
    return path


def test_a_truncated_gguf_file_is_named(gguf_model):
    """In torch, and before llama.cpp reads it."""
    gguf_model.write_bytes(gguf_model.read_bytes()[:-100])
    for read in (loading.load, check.check_model):
        with pytest.raises(UnknownModel, match="whole.gguf is truncated"):
            read(f"gguf:{gguf_model}")
    with pytest.raises(UnknownModel, match="truncated"):
        check.check_model(f"llamacpp:{gguf_model}")


def test_a_bias_that_transformers_would_drop_is_named(tiny_llama, tmp_path):
    """Transformers reads a GGUF's Llama without biases, whatever the file holds."""
    plain = merging.load(tiny_llama(num_layers=2))
    config = copy.deepcopy(plain.model.config)
    config.attention_bias = True
    biased = dataclasses.replace(plain, model=LlamaForCausalLM(config))
    convert.to_gguf(biased, "f16", tmp_path / "biased.gguf")

    with pytest.raises(UnknownModel, match=r"8 weights unexpected: blk.0.attn_k.bias"):
        loading.load(f"gguf:{tmp_path / 'biased.gguf'}")


@pytest.fixture
def parts(tmp_path):
    """A GGUF model in three parts."""
    writer = gguf.GGUFWriter(tmp_path / "big.gguf", "llama", split_max_tensors=2)
    writer.add_block_count(1)
    writer.add_embedding_length(32)
    writer.add_context_length(64)
    writer.add_file_type(0)
    writer.add_token_list(["a"] * 5)
    for number in range(5):
        writer.add_tensor(f"blk.0.part_{number}.weight", np.ones((4, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(tmp_path.glob("big-*.gguf"))


def test_a_gguf_model_in_parts_is_one_model(parts):
    """Parameters, bytes and fingerprint cover all parts."""
    assert len(parts) == 3
    facts = gguf_facts.gguf_facts("big", parts[0])

    assert (facts.num_parameters, facts.weight_bytes) == (640, 2560)
    assert sizes.read_sizes(f"llamacpp:{parts[0]}").num_parameters == 640
    assert gguf_files.read_files(parts[0]).num_bytes == sum(p.stat().st_size for p in parts)
    parts[2].write_bytes(parts[2].read_bytes()[:-1] + b"x")
    assert gguf_facts.gguf_facts("big", parts[0]).fingerprint != facts.fingerprint


def test_parts_that_are_missing_mixed_up_or_renamed_are_refused(parts):
    """And torch, which reads one file, says how to join them."""
    with pytest.raises(UnknownModel, match="--merge"):
        loading.load(f"gguf:{parts[0]}")
    with pytest.raises(UnknownModel, match="not the first part .* Name big-00001-of-00003.gguf"):
        check.check_model(f"llamacpp:{parts[1]}")
    renamed = shutil.copy(parts[0], parts[0].with_name("renamed.gguf"))
    with pytest.raises(UnknownModel, match="part 1 of 3 and must be called"):
        check.check_model(f"llamacpp:{renamed}")
    whole = parts[1].read_bytes()
    shutil.copy(parts[2], parts[1])
    with pytest.raises(UnknownModel, match="big-00002-of-00003.gguf is not part 2 of 3"):
        check.check_model(f"llamacpp:{parts[0]}")
    parts[1].write_bytes(whole)
    parts[2].unlink()
    with pytest.raises(UnknownModel, match="beside it big-00003-of-00003.gguf is missing"):
        check.check_model(f"llamacpp:{parts[0]}")


@pytest.fixture
def one_token_more(folder):
    """A model whose tokenizer has one token more than the embedding has rows."""
    tokenizer = loading.load_tokenizer(str(folder))
    tokenizer.add_tokens([f"<{i}>" for i in range(320 - len(tokenizer))])
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(folder)
    return folder


def test_a_text_with_a_token_without_a_row_is_refused(one_token_more, tiny_run, store_root):
    """By the preflight, for a corpus that has it; others can be trained on."""
    plain = RunSpec.parse(tiny_run | {"teacher": str(one_token_more)})
    assert [f.severity for f in preflight.findings([plain], store_root)] == ["warning"]

    corpus = one_token_more.parent / "padded.txt"
    corpus.write_text("\n\n".join(f"Document {i} ends so: [PAD]" for i in range(80)))
    distill = tiny_run["distill"] | {"corpus": str(corpus)}
    padded = RunSpec.parse(tiny_run | {"teacher": str(one_token_more), "distill": distill})
    errors = [f.message for f in preflight.findings([padded], store_root) if f.error]
    assert len(errors) == 1
    assert "has the token [PAD]" in errors[0]
    assert "321 tokens and its embedding 320 rows" in errors[0]


def test_a_model_that_is_given_such_a_token_says_so(one_token_more, tmp_path):
    """Never an index out of range; padding uses another token, and a GGUF names no such one."""
    loaded = loading.load(str(one_token_more))
    assert loaded.tokenizer.pad_token_id < 320

    with pytest.raises(BadInput, match="321 tokens and its embedding 320 rows"):
        loaded.model(torch.tensor([[5, 320]]))
    assert loaded.model(torch.tensor([[5, 6]])).logits.isfinite().all()
    loaded.tokenizer.pad_token = "[PAD]"
    convert.to_gguf(loaded, "f16", tmp_path / "model.gguf")
    assert "tokenizer.ggml.padding_token_id" not in gguf.GGUFReader(tmp_path / "model.gguf").fields


def test_weights_on_another_disk_are_found_through_a_link(folder, store_root, tmp_path):
    """The folders of a store may be links; a path out of the store is not followed."""
    disk.run_folder(store_root, "far").mkdir()
    (tmp_path / "disk" / "key").mkdir(parents=True)
    shutil.copytree(folder, tmp_path / "disk/key/model")
    (store_root / disk.STUDENTS).symlink_to(tmp_path / "disk")
    disk.write_weights(store_root, "far", store_root / disk.STUDENTS / "key" / "model")

    assert loading.locate("run:far").folder == store_root / disk.STUDENTS / "key" / "model"
    for outside in ("../model", str(folder)):
        assert disk.weights_by_name(store_root, outside) is None
