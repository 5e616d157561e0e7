"""HTML cards of documents: the question, the choices, and what both models answered."""

import html
from collections.abc import Sequence
from typing import Any

from explorer.analysis import numbers
from explorer.lm_eval_io.samples import SampleAnswer
from explorer.tasks.preview import Question

PROMPT_CHARS = 700
"""Characters of a prompt's end shown at first; few-shot examples before it can be long."""
CORRECT = ' <span title="correct">✓</span>'
CHOSEN = '<span title="chosen">●</span> '


def document_card(
    row: dict[Any, Any],
    run: SampleAnswer | None,
    reference: SampleAnswer | None,
    names: tuple[str, str],
) -> str:
    """One document with both answers, as HTML. All text is escaped.

    Args:
        row: A row of `answer_flips.answer_flips`.
        run: The run's answer; None if its samples are not on this machine.
        reference: The reference's answer; None as above.
        names: Names of the run and of the reference.
    """
    answer = run or reference
    head = (
        f'<span class="{row["outcome"]}">{row["outcome"]}</span>'
        f'<span class="quiet">document {row["doc_id"]}</span>{_margins(run, reference, names)}'
    )
    if answer is None:
        values = (
            f"{html.escape(names[0])} {numbers.significant(row['run'])}, "
            f"{html.escape(names[1])} {numbers.significant(row['reference'])}"
        )
        body = (
            f'<div class="quiet">{values} · document hash {html.escape(row["doc_hash"][:12])}</div>'
        )
    elif answer.choices:
        body = _prompt(answer.prompt) + _choices(run, reference, names)
    else:
        body = _prompt(answer.prompt) + _generated(run, reference, answer.target, names)
    return f'<article class="document"><header>{head}</header>{body}</article>'


def question_card(question: Question) -> str:
    """One document as a model sees it, with the correct answers marked, as HTML."""
    head = f'<header><span class="quiet">document {question.doc_id}</span></header>'
    answers = [(choice, i in question.right) for i, choice in enumerate(question.choices)]
    if question.target:
        answers.append((question.target, True))
    rows = "".join(
        f'<tr{" class=right" if right else ""}><td class="text">{html.escape(text.strip())}'
        f"{CORRECT if right else ''}</td></tr>"
        for text, right in answers
    )
    label = "choices" if len(question.choices) > 1 else "expected continuation"
    table = f"<table><thead><tr><th>{label}</th></tr></thead><tbody>{rows}</tbody></table>"
    ends = "".join(f" {stop!r}" for stop in question.until)
    until = f'<div class="quiet">ends at{html.escape(ends)}</div>' if ends else ""
    body = _prompt(question.prompt) + (table if answers else "") + until
    return f'<article class="document">{head}{body}</article>'


def _margins(
    run: SampleAnswer | None, reference: SampleAnswer | None, names: tuple[str, str]
) -> str:
    margins = [
        f"{html.escape(name)} {_signed(answer.margin)}"
        for name, answer in zip(names, (run, reference), strict=True)
        if answer is not None and answer.margin is not None
    ]
    return f'<span class="quiet">margin {", ".join(margins)}</span>' if margins else ""


def _signed(value: float) -> str:
    return f"{'+' if value > 0 else ''}{numbers.significant(value)}".replace("-", "−")


def _prompt(prompt: str) -> str:
    if not prompt.strip():
        return '<div class="prompt quiet">No prompt: each choice is a whole sentence.</div>'
    if len(prompt) <= PROMPT_CHARS:
        return f'<div class="prompt">{html.escape(prompt)}</div>'
    return (
        f'<div class="prompt">…{html.escape(prompt[-PROMPT_CHARS:])}</div>'
        f"<details><summary>The whole prompt, {len(prompt):,} characters</summary>"
        f'<div class="prompt">{html.escape(prompt)}</div></details>'
    )


def _choices(
    run: SampleAnswer | None, reference: SampleAnswer | None, names: tuple[str, str]
) -> str:
    answer = run or reference
    assert answer is not None, "the caller has one of the two"
    rows = []
    for place, choice in enumerate(answer.choices):
        cells = "".join(_likelihood(each, place) for each in (run, reference))
        mark = CORRECT if choice.right else ""
        shown = html.escape(choice.text.strip())
        kind = ' class="right"' if choice.right else ""
        rows.append(f'<tr{kind}><td class="text">{shown}{mark}</td>{cells}</tr>')
    heads = "".join(f'<th class="number">{html.escape(name)}</th>' for name in names)
    return (
        f"<table><thead><tr><th>log-likelihood</th>{heads}</tr>"
        f"</thead><tbody>{''.join(rows)}</tbody></table>"
    )


def _likelihood(answer: SampleAnswer | None, place: int) -> str:
    if answer is None or place >= len(answer.choices):
        return f'<td class="number">{numbers.MISSING}</td>'
    choice = answer.choices[place]
    value = numbers.significant(choice.loglikelihood).replace("-", "−")
    return f'<td class="number">{CHOSEN if choice.chosen else ""}{value}</td>'


def _generated(
    run: SampleAnswer | None, reference: SampleAnswer | None, target: str, names: tuple[str, str]
) -> str:
    texts: Sequence[tuple[str, str]] = [
        ("expected", target),
        *(
            (name, answer.response if answer else numbers.MISSING)
            for name, answer in zip(names, (run, reference), strict=True)
        ),
    ]
    rows = "".join(
        f'<tr><th>{html.escape(name)}</th><td class="text">{html.escape(text)}</td></tr>'
        for name, text in texts
    )
    return f"<table><tbody>{rows}</tbody></table>"
