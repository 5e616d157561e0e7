"""Which tokens to compute: the texts of many requests as trees that share their prefixes.

Texts that begin alike share one path up to the token where they differ: a question for all its
choices, the opening for both sentences of a minimal pair. A prefix that hundreds of texts share,
such as the examples of a few-shot task, becomes a header whose keys and values are computed once
and cached.

    header [few-shot examples]  <-  row [question - choice A | - choice B] [next question - ...]
                                <-  row ...

A tree lies in its row in depth-first order. A token is then visible to exactly the tokens that
come after it and before `ends`, the end of its subtree. This takes a mask of two comparisons, and
trees side by side in one row do not see each other.

    group = plan_batches([ScoredText(np.array([1, 5, 7]), np.array([9]))], budget=1024)[0]
"""

import bisect
import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

ROW_TOKENS = 128
"""Length to which rows are filled, in tokens. Longer rows waste attention on masked keys, shorter
ones copy the header more often."""
MIN_HEADER = 32
"""Shortest prefix that is cached as a header, in tokens."""


@dataclasses.dataclass(frozen=True)
class ScoredText:
    """What a model reads for one request, and the tokens to score at its end."""

    tokens: Array
    """Input, without the last target."""
    targets: Array
    """Target j is scored at input position len(tokens) - len(targets) + j."""

    @property
    def first_scored(self) -> int:
        """Input position at which the first target is scored."""
        return len(self.tokens) - len(self.targets)


@dataclasses.dataclass(frozen=True)
class ScoredSpan:
    """Where in a row the targets of a text are scored."""

    number: int
    """Index of the text in the list given to `plan_batches`."""
    slots: Array
    """Indices in the row, one per target."""
    targets: Array


@dataclasses.dataclass
class PackedRow:
    """Trees side by side in one row."""

    tokens: Array
    positions: Array
    """Position of each token in its text, the header included."""
    ends: Array
    """Index after the last token of the subtree that begins at each token."""
    spans: list[ScoredSpan]

    def __len__(self) -> int:
        """Number of tokens."""
        return len(self.tokens)


@dataclasses.dataclass
class PrefixGroup:
    """Batches of rows that share one header."""

    header: Array
    batches: list[list[PackedRow]]

    @property
    def num_tokens(self) -> int:
        """Tokens to compute, padding included."""
        padded = (len(batch) * max(map(len, batch)) for batch in self.batches)
        return len(self.header) + sum(padded)


def plan_batches(
    texts: list[ScoredText],
    *,
    budget: int,
    row_tokens: int = ROW_TOKENS,
    min_header: int = MIN_HEADER,
) -> list[PrefixGroup]:
    """Arrange the texts so that few tokens are computed.

    Args:
        texts: Each with at least one token and one target. Their order affects only
            `ScoredSpan.number`.
        budget: Tokens in one batch; a single longer row is a batch by itself.
        row_tokens: Length to which rows are filled.
        min_header: Shortest prefix that becomes a header.
    """
    keys = [text.tokens.astype(">u4").tobytes() for text in texts]
    order = sorted(range(len(texts)), key=lambda i: (keys[i], len(texts[i].targets), i))
    forest = _Forest([texts[i] for i in order], order, row_tokens, min_header)
    return [
        PrefixGroup(
            header, list(_batches(_rows(pieces, max(row_tokens, len(header) // 2)), budget))
        )
        for header, pieces in forest.groups()
    ]


def single_text_row(tokens: Array, first_position: int = 0) -> PackedRow:
    """A row with one text alone."""
    length = len(tokens)
    positions = np.arange(first_position, first_position + length)
    return PackedRow(tokens, positions, np.full(length, length), [])


class _Forest:
    """Texts in lexicographic order, where neighbours share the longest prefixes."""

    def __init__(
        self, texts: list[ScoredText], numbers: list[int], row_tokens: int, min_header: int
    ) -> None:
        self.texts, self.numbers = texts, numbers
        self.row_tokens, self.min_header = row_tokens, min_header
        self.lengths = np.array([len(text.tokens) for text in texts])
        self.first_scored = np.array([text.first_scored for text in texts])
        # shared[i]: tokens that text i has in common with text i - 1.
        pairs = zip(texts, texts[1:], strict=False)
        shared = [_num_common(left.tokens, right.tokens) for left, right in pairs]
        self.shared = np.array([0, *shared])

    def groups(self) -> Iterator[tuple[Array, list[PackedRow]]]:
        """Each header with the trees that follow it."""
        headers = [(0, len(self.texts), 0)] if self.texts else []
        while headers:
            start, stop, header = headers.pop()
            members, deeper = self._part(start, stop, header)
            headers += deeper
            if members:
                yield self.texts[start].tokens[:header], list(self._pieces(members, header))

    def _part(
        self, start: int, stop: int, header: int
    ) -> tuple[list[int], list[tuple[int, int, int]]]:
        """The texts that share `header` alone, and the ranges that deserve a longer one."""
        members: list[int] = []
        deeper: list[tuple[int, int, int]] = []
        ranges = [(start, stop)]
        while ranges:
            low, high = ranges.pop()
            inner = self.shared[low + 1 : high]
            num_new = self.lengths[low] + (self.lengths[low + 1 : high] - inner).sum() - header
            if high - low < 2 or num_new <= self.row_tokens:
                members += range(low, high)
                continue
            branching = int(inner.min())
            common = min(branching, int(self.first_scored[low:high].min()))
            if common - header >= self.min_header:
                deeper.append((low, high, common))
                continue
            cuts = [low, *(np.flatnonzero(inner == branching) + low + 1).tolist(), high]
            if len(cuts) == high - low + 1:
                members += range(low, high)
            else:
                ranges += zip(cuts, cuts[1:], strict=False)
        return sorted(members), deeper

    def _pieces(self, members: list[int], header: int) -> Iterator[PackedRow]:
        """Cut the texts into trees of at most `row_tokens`, unless one text is longer."""
        tree: list[int] = []
        num_tokens = 0
        for i in members:
            own = int(self.lengths[i]) - header
            common = int(self.shared[i]) - header
            joins = (
                tree
                and tree[-1] == i - 1
                and common > 0
                and num_tokens + own - common <= self.row_tokens
            )
            if tree and not joins:
                yield self._tree(tree, header)
                tree, num_tokens = [], 0
            tree.append(i)
            num_tokens += own - common if joins else own
        yield self._tree(tree, header)

    def _tree(self, members: list[int], header: int) -> PackedRow:
        """Arrange neighbouring texts in depth-first order."""
        path = np.zeros(0, dtype=np.int64)
        tokens, positions, spans = [], [], []
        ends = np.zeros(int(self.lengths[members].sum()), dtype=np.int64)
        num_tokens = 0
        for place, i in enumerate(members):
            text = self.texts[i]
            num_shared = int(self.shared[i]) - header if place else 0
            ends[path[num_shared:]] = num_tokens
            new = text.tokens[header + num_shared :]
            tokens.append(new)
            positions.append(np.arange(header + num_shared, len(text.tokens)))
            new_path = np.arange(num_tokens, num_tokens + len(new))
            path = np.concatenate([path[:num_shared], new_path])
            num_tokens += len(new)
            slots = path[text.first_scored - header :]
            spans.append(ScoredSpan(self.numbers[i], slots, text.targets))
        ends[path] = num_tokens
        return PackedRow(
            np.concatenate(tokens), np.concatenate(positions), ends[:num_tokens], spans
        )


def _rows(trees: list[PackedRow], row_tokens: int) -> list[PackedRow]:
    """Fill rows, each with the largest remaining tree and then the largest that still fit."""
    left = sorted(range(len(trees)), key=lambda i: (len(trees[i]), -i))
    lengths = [len(trees[i]) for i in left]
    rows = []
    while left:
        lengths.pop()
        row = [trees[left.pop()]]
        space = row_tokens - len(row[0])
        while (place := bisect.bisect_right(lengths, space)) > 0:
            space -= lengths.pop(place - 1)
            row.append(trees[left.pop(place - 1)])
        rows.append(_side_by_side(row))
    return sorted(rows, key=len, reverse=True)


def _side_by_side(trees: list[PackedRow]) -> PackedRow:
    starts = np.cumsum([0, *map(len, trees)]).tolist()
    spans = [
        dataclasses.replace(span, slots=span.slots + start)
        for tree, start in zip(trees, starts, strict=False)
        for span in tree.spans
    ]
    ends = [tree.ends + start for tree, start in zip(trees, starts, strict=False)]
    return PackedRow(
        np.concatenate([tree.tokens for tree in trees]),
        np.concatenate([tree.positions for tree in trees]),
        np.concatenate(ends),
        spans,
    )


def _batches(rows: Iterable[PackedRow], budget: int) -> Iterator[list[PackedRow]]:
    """Batch rows of similar length, longest first, so that memory runs out early or never."""
    batch: list[PackedRow] = []
    for row in rows:
        if batch and (len(batch) + 1) * len(batch[0]) > budget:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _num_common(left: Array, right: Array) -> int:
    """Length of the common prefix."""
    length = min(len(left), len(right))
    different = np.flatnonzero(left[:length] != right[:length])
    return int(different[0]) if len(different) else length
