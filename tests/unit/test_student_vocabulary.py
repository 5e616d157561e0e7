"""Teacher and student of one vocabulary, padded differently, or of two."""

import pytest
import torch

from explorer.errors import BadInput
from explorer.models.loading import load
from explorer.students import vocabulary
from tests.tiny_models import gpt2, llama


def test_siblings_that_are_padded_differently_share_their_real_vocabulary(tiny_llama):
    """320 and 352 rows for 259 tokens: both understand the same 259."""
    teacher, student = load(str(tiny_llama())), load(str(tiny_llama(vocab_size=352)))

    assert vocabulary.check_same_vocabulary(teacher, student) == 259


def test_other_tokenizers_are_refused_with_a_way_on(tiny_llama):
    """The message has an example token and names the alternative."""
    teacher, student = load(str(tiny_llama())), load(str(tiny_llama()))
    student.tokenizer.add_tokens(["hello"])
    assert vocabulary.check_same_vocabulary(teacher, student) == 259  # more tokens do no harm

    with pytest.raises(
        BadInput, match=r"1 of the teacher's 260 tokens, such as 'hello'.*method: text"
    ):
        vocabulary.check_same_vocabulary(student, teacher)


def test_a_student_without_rows_for_all_tokens_is_refused(tiny_llama):
    """Its embedding is shorter than the tokenizer it comes with."""
    teacher, student = load(str(tiny_llama())), load(str(tiny_llama()))
    vocabulary.slice_vocabulary(student.model, 200)

    with pytest.raises(BadInput, match="has too few rows for the 259 tokens"):
        vocabulary.check_same_vocabulary(teacher, student)


@pytest.mark.parametrize("make", [gpt2, llama])
def test_a_cut_vocabulary_answers_as_before(make, tmp_path):
    """The kept tokens' logits stay; ties stay; it saves and loads with transformers alone."""
    model = make()
    ids = torch.arange(40)[None]
    before = model(ids).logits
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight

    vocabulary.slice_vocabulary(model, 50)

    assert torch.equal(model(ids).logits, before[..., :50])
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert torch.equal(again(ids).logits, before[..., :50])
    assert again.config.vocab_size == 50
    assert (again.get_output_embeddings().weight is again.get_input_embeddings().weight) == tied
