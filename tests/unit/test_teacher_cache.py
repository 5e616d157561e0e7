"""The teacher's cached distributions."""

import json
import os
import re

import numpy as np
import pytest
import torch
from filelock import FileLock
from torch.nn.functional import log_softmax

from explorer.distill.packed_topk import PackedTopK
from explorer.distill.teacher_cache import TeacherCache, local_teacher
from explorer.distill.teacher_cache_files import damaged_shards, list_caches, remove_cache
from explorer.errors import BadInput, DamagedStore, JobError
from explorer.models.loading import load
from tests import killing


@pytest.fixture
def teacher(tiny_llama):
    return load(str(tiny_llama()))


@pytest.fixture
def blocks():
    return torch.randint(0, 320, (12, 16), generator=torch.Generator().manual_seed(0))


def _open(tmp_path, blocks, **changes):
    identity = {"teacher": "t", "top_k": 8, "temperature": 1.0, "vocab_size": 320, **changes}
    return TeacherCache(tmp_path / "targets", blocks, identity)


def _fill(targets, teacher, wanted):
    calls = []
    targets.fill(lambda: local_teacher(teacher), wanted, lambda *told: calls.append(told))
    return calls


def test_targets_are_the_teachers_most_likely_tokens(tmp_path, teacher, blocks):
    """Ids are exact and log-probabilities within half precision of the teacher's."""
    targets = _open(tmp_path, blocks)
    _fill(targets, teacher, list(range(12)))

    ids, kept, log_p = targets.batch([3])

    with torch.inference_mode():
        expected = log_softmax(teacher.model(blocks[3:4]).logits.float(), -1).topk(8)
    torch.testing.assert_close(ids, blocks[3:4])
    torch.testing.assert_close(log_p[..., :8].float(), expected.values, rtol=1e-3, atol=5e-3)
    torch.testing.assert_close(log_p.float().exp().sum(-1), torch.ones(1, 16), rtol=0, atol=1e-2)
    assert (kept == expected.indices).float().mean() > 0.99


def test_a_later_run_adds_only_what_is_missing(tmp_path, teacher, blocks):
    """Blocks that are there are not computed again, and a full store needs no teacher."""
    _fill(_open(tmp_path, blocks), teacher, [0, 1, 2])
    again = _open(tmp_path, blocks)
    before = [part.clone() for part in again.batch([0, 1, 2])]

    calls = _fill(again, teacher, [0, 1, 2, 7])

    assert calls[-1][:2] == (16, 16)
    assert again.done == [0, 1, 2, 7]
    for ours, theirs in zip(again.batch([0, 1, 2]), before, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)

    def no_teacher():
        raise AssertionError("nothing is missing")

    again.fill(no_teacher, [0, 7], lambda *told: None)


def test_another_teacher_or_corpus_has_another_folder(tmp_path, blocks):
    """Targets of one teacher can never be read for another."""
    keys = {
        _open(tmp_path, blocks).key,
        _open(tmp_path, blocks, teacher="u").key,
        _open(tmp_path, blocks, temperature=2.0).key,
        _open(tmp_path, blocks[:5]).key,
    }

    assert len(keys) == 4


def test_a_folder_of_other_targets_is_refused(tmp_path, teacher, blocks):
    """Copied by hand under this key, it is named, refused and left alone."""
    theirs, ours = _open(tmp_path, blocks, teacher="u"), _open(tmp_path, blocks)
    _fill(theirs, teacher, [0])
    (theirs.folder / "meta.json").replace(ours.folder / "meta.json")

    with pytest.raises(DamagedStore, match=r"the targets of another teacher"):
        _open(tmp_path, blocks)
    assert ours.folder.exists()


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda path: path.unlink(), "is missing; its 4 blocks will be computed again"),
        (lambda path: os.truncate(path, 100), r"has 100 bytes of 2,176; its 4 blocks"),
        (lambda path: path.write_bytes(bytes(2176)), "does not have the checksum"),
    ],
)
def test_a_damaged_shard_is_computed_again(tmp_path, teacher, blocks, harm, says, caplog):
    """One sentence in the log; the other shards stay, and the numbers are the same."""
    targets = _open(tmp_path, blocks)
    _fill(targets, teacher, [4, 5])
    _fill(targets, teacher, [0, 1, 2, 3])
    before = [part.clone() for part in targets.batch([0, 4])]
    harm(targets.folder / "shard-00001.bin")

    again = _open(tmp_path, blocks)
    calls = _fill(again, teacher, [0, 4])

    assert re.search(says, caplog.text)
    assert calls[-1][0] == 16, "only the block that is wanted and gone"
    for ours, theirs in zip(again.batch([0, 4]), before, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_a_killed_pass_keeps_its_shards(tmp_path, teacher, blocks, monkeypatch):
    """What was written before the kill is not computed again."""
    monkeypatch.setattr("explorer.distill.teacher_cache.SHARD_BYTES", 1)
    targets = _open(tmp_path, blocks)

    def kill(done, total, rate):
        if done == 2 * 4 * 16:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        targets.fill(lambda: local_teacher(teacher), list(range(12)), kill)

    again = _open(tmp_path, blocks)
    assert again.done == list(range(8))
    assert _fill(again, teacher, list(range(12)))[-1][1] == 4 * 16
    assert len(list(again.folder.glob("shard-*.bin"))) == 3


def test_the_index_grows_by_its_new_shards(tmp_path, teacher, blocks):
    """What is written already stays where it is, whatever a killed pass left behind it."""
    targets = _open(tmp_path, blocks)
    path = targets.folder / "index.jsonl"
    _fill(targets, teacher, [0, 1])
    first, file_id = path.read_bytes(), path.stat().st_ino
    assert first.count(b"\n") == 1
    with path.open("ab") as file:
        file.write(b'{"name": "shard-00001.bin", "blo')

    again = _open(tmp_path, blocks)
    assert again.done == [0, 1]
    _fill(again, teacher, [5])
    _fill(targets, teacher, [6])

    lines = path.read_bytes().splitlines(keepends=True)
    assert (lines[0], len(lines), path.stat().st_ino) == (first, 3, file_id)
    assert _open(tmp_path, blocks).done == targets.done == [0, 1, 5, 6]


def test_targets_with_the_index_of_older_versions_are_used_and_added_to(tmp_path, teacher, blocks):
    """One JSON object with all shards: nothing is computed again, and a damaged shard goes."""
    targets = _open(tmp_path, blocks)
    _fill(targets, teacher, [0, 1])
    _fill(targets, teacher, [2])
    before = [part.clone() for part in targets.batch([0, 2])]
    path, old = targets.folder / "index.jsonl", targets.folder / "index.json"
    shards = [json.loads(line) for line in path.read_text().splitlines()]
    old.write_text(json.dumps({"shards": shards}))
    path.unlink()

    again = _open(tmp_path, blocks)
    assert _fill(again, teacher, [0, 1, 2, 3])[-1][1] == 16
    for ours, theirs in zip(again.batch([0, 2]), before, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    assert list_caches(targets.folder.parent)[0]["num_blocks"] == 4
    facts = again.facts([0, 3])
    assert facts.num_positions == 4 * 16

    (targets.folder / "shard-00000.bin").unlink()
    assert damaged_shards(targets.folder.parent, targets.key) == ["shard-00000.bin is missing."]
    _fill(again, teacher, [0])
    assert not old.exists()
    assert _open(tmp_path, blocks).done == [0, 2, 3]


@pytest.mark.parametrize("name", ["../../record.json", "/etc/passwd", "meta.json", "", None])
def test_an_index_that_names_other_files_is_refused(tmp_path, teacher, blocks, name):
    """Only shards beside the index count: other lines are computed again, an old index refused."""
    targets = _open(tmp_path, blocks)
    _fill(targets, teacher, [0, 1])
    path = targets.folder / "index.jsonl"
    shard = json.loads(path.read_text()) | {"name": name}
    del shard["checksum"]
    path.write_text(json.dumps(shard) + "\n")
    assert _open(tmp_path, blocks).done == []
    path.unlink()
    (targets.folder / "index.json").write_text(json.dumps({"shards": [shard]}))

    with pytest.raises(DamagedStore, match=r"no shard.*explorer targets rm"):
        _open(tmp_path, blocks)
    assert "problem" in list_caches(targets.folder.parent)[0]


def test_a_pass_killed_at_any_moment_goes_on(tmp_path, teacher, blocks):
    """No block is lost that the index names, and what follows is whole."""

    def fill(kill):
        kill.armed = False
        targets = _open(tmp_path / str(kill.moment), blocks)
        _fill(targets, teacher, [0])
        kill.armed = True
        _fill(targets, teacher, [1])

    kills = 0
    for kill in killing.moments(fill):
        kills += 1
        again = _open(tmp_path / str(kill.moment), blocks)
        _fill(again, teacher, [0, 1, 2])
        assert _open(tmp_path / str(kill.moment), blocks).done == [0, 1, 2]
        assert damaged_shards(again.folder.parent, again.key) == []
    assert kills > 2


@pytest.mark.parametrize("line", ["[]\n", '{"name": "../../x"}\n', "\0\0\n"])
def test_a_damaged_line_of_the_index_is_computed_again(tmp_path, teacher, blocks, line, caplog):
    """Its blocks count as missing, and the log says so."""
    targets = _open(tmp_path, blocks)
    _fill(targets, teacher, [0, 3])
    (targets.folder / "index.jsonl").write_text(line)

    again = _open(tmp_path, blocks)

    assert again.done == []
    assert "index.jsonl is damaged, and its blocks are computed again" in caplog.text
    _fill(again, teacher, [0, 3])
    assert _open(tmp_path, blocks).done == [0, 3]


def test_the_facts_say_what_truncation_costs(tmp_path, teacher, blocks):
    """The KL from the dense teacher to kept tokens with the tail spread evenly, by hand."""
    targets = _open(tmp_path, blocks)
    _fill(targets, teacher, [0, 3])

    facts = targets.facts([3])

    with torch.inference_mode():
        p = teacher.model(blocks[3:4]).logits[0, ::8].double().softmax(-1)
        everything = teacher.model(blocks[3:4]).logits[0].double().softmax(-1)
    kept = p.topk(8, dim=-1)
    spread = (1 - kept.values.sum(-1, keepdim=True)) / (320 - 8)
    guess = spread.expand_as(p).scatter(-1, kept.indices, kept.values)
    assert facts.truncation_kl == pytest.approx(
        float((p * (p / guess).log()).sum(-1).mean()), rel=1e-3
    )
    assert facts.mean_mass == pytest.approx(
        float(everything.topk(8).values.sum(-1).mean()), rel=1e-3
    )
    assert (facts.id_bits, facts.bytes_per_token) == (16, 34)
    assert facts.num_positions == 32


@pytest.mark.parametrize(
    ("vocab_size", "id_bits", "num_bytes"),
    [(49_152, 16, 130), (65_536, 16, 130), (131_072, 17, 134), (151_936, 18, 138), (32, 16, 128)],
)
def test_ids_are_packed_into_as_few_bits_as_they_need(vocab_size, id_bits, num_bytes):
    """Whatever the vocabulary, what is read is what was written."""
    row = PackedTopK(32, vocab_size)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, vocab_size, (2, 3, 32), generator=generator).numpy()
    ids[0, 0, :2] = 0, vocab_size - 1
    log_p = -torch.rand((2, 3, row.num_events), generator=generator).half().numpy()

    rows = row.pack(ids, log_p)

    assert (row.id_bits, row.num_bytes) == (id_bits, num_bytes)
    assert rows.shape == (2, 3, num_bytes)
    for ours, theirs in zip(row.unpack(rows), (ids, log_p), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_targets_are_listed_looked_at_and_removed(tmp_path, teacher, blocks):
    """A folder that no explorer of today reads is listed too, as such."""
    targets = _open(tmp_path, blocks)
    _fill(targets, teacher, [0, 3])
    root = targets.folder.parent
    old = root / "0123456789abcdef"
    old.mkdir()
    (old / "ids.bin").write_bytes(bytes(9999))

    first, second = list_caches(root)
    assert first["key"] == old.name
    assert "older version" in first["problem"]
    assert (second["key"], second["num_blocks"], second["num_blocks_of_corpus"]) == (
        targets.key,
        2,
        12,
    )
    assert damaged_shards(root, targets.key) == []
    os.truncate(targets.folder / "shard-00000.bin", 5)
    assert damaged_shards(root, targets.key) == ["shard-00000.bin has 5 bytes of 1,088."]
    with FileLock(root / f"{targets.key}.lock"), pytest.raises(JobError, match="A run is writing"):
        remove_cache(root, targets.key)
    remove_cache(root, targets.key)
    assert [row["key"] for row in list_caches(root)] == [old.name]
    for key in (targets.key, "../x", ""):
        with pytest.raises(BadInput, match="no targets"):
            remove_cache(root, key)
    assert list_caches(tmp_path / "nowhere") == []


def test_a_removal_that_is_killed_leaves_targets_that_are_made_again(tmp_path, teacher, blocks):
    """Killed at any change of the disk, a run makes what it needs, a removal ends it."""

    def removed(kill):
        kill.armed = False
        targets = _open(tmp_path / str(kill.moment), blocks)
        _fill(targets, teacher, [0])
        kill.armed = True
        remove_cache(targets.folder.parent, targets.key)

    kills = 0
    for kill in killing.moments(removed):
        kills += 1
        again = _open(tmp_path / str(kill.moment), blocks)
        _fill(again, teacher, [0, 1])
        assert again.done == [0, 1]
        remove_cache(again.folder.parent, again.key)
        assert list_caches(again.folder.parent) == []
    assert kills > 3
