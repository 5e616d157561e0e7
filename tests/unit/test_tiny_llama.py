"""The model that the fast tests use in place of a real one."""


def test_tiny_llama_loads_by_its_folder(tiny_llama):
    """A folder in Hugging Face's layout is a model: its weights load and its tokenizer is exact."""
    from explorer.models import loading

    loaded = loading.load(str(tiny_llama(num_layers=3)))

    assert loaded.model.config.num_hidden_layers == 3
    ids = loaded.tokenizer("A café.").input_ids
    assert max(ids) < loaded.model.config.vocab_size
    assert loaded.tokenizer.decode(ids) == "A café."


def test_tiny_llama_is_the_same_for_the_same_seed(tiny_llama):
    """A random test model depends on its arguments alone, never on what ran before."""
    folder = tiny_llama(seed=1)

    assert tiny_llama(seed=1) == folder
    weights = [tiny_llama(seed=seed) / "model.safetensors" for seed in (0, 1)]
    assert weights[0].read_bytes() != weights[1].read_bytes()
