"""Which documents a limit takes."""

from collections import Counter

import pytest

from explorer.errors import BadInput
from explorer.evaluate import subset, task_scores
from explorer.tasks import task_loading
from tests import local_tasks


def test_larger_limit_keeps_the_smaller_ones_documents():
    """Raising the limit adds documents; another seed or task takes others."""
    alike = [""] * 1000
    small = subset.choose_documents("t", alike, 50, 0)

    assert set(small) < set(subset.choose_documents("t", alike, 100, 0))
    assert small != subset.choose_documents("t", alike, 50, 1)
    assert small != subset.choose_documents("u", alike, 50, 0)
    assert small == sorted(small)
    assert subset.choose_documents("t", alike[:10], 50, 0) == list(range(10))


@pytest.mark.parametrize("limit", [1, 17, 100, 333, 999])
def test_each_stratum_gives_its_share(limit):
    """Of any sample, a stratum has its share of all documents, less or more by one at most."""
    sizes = {"common": 700, "rare": 290, "once": 10}
    strata = [name for name, size in sizes.items() for _ in range(size)]

    for seed in range(20):
        found = Counter(strata[i] for i in subset.choose_documents("t", strata, limit, seed))
        assert sum(found.values()) == limit
        for name, size in sizes.items():
            assert abs(found[name] - limit * size / 1000) < 2


def test_over_the_seeds_each_document_is_as_likely():
    """Small strata are neither favoured nor forgotten: 5 of 20 documents are each taken 1 in 4."""
    strata = ["a"] * 13 + ["b"] * 6 + ["c"]
    taken = Counter(
        i for seed in range(4000) for i in subset.choose_documents("t", strata, 5, seed)
    )

    # Five standard errors of a share of 1/4 in 4,000 draws are 0.034.
    assert all(abs(taken[i] / 4000 - 1 / 4) < 0.034 for i in range(20))


def test_documents_are_told_apart_by_what_their_task_says(tmp_path):
    """By a field that the metadata names, and by which choice is right; refused where it lacks."""
    local_tasks.write(tmp_path)
    path = tmp_path / "local_letter.yaml"
    plain = task_loading.load_tasks(["local_letter", "local_word"], str(tmp_path))
    assert subset.document_strata(plain["local_letter"])[:3] == ["/0", "/1", "/0"]
    assert set(subset.document_strata(plain["local_word"])) == {"/"}

    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("chance: 0.4", "stratum: end"), encoding="utf-8")
    told = task_loading.load_tasks(["local_letter"], str(tmp_path))["local_letter"]
    assert subset.document_strata(told)[:3] == ["R/0", "Pa/1", "Osl/0"]

    path.write_text(text.replace("chance: 0.4", "stratum: text"), encoding="utf-8")
    wrong = task_loading.load_tasks(["local_letter"], str(tmp_path))["local_letter"]
    with pytest.raises(BadInput, match="metadata: stratum: text.*no such field"):
        task_scores.check_metadata_fields(wrong, "local_letter")
