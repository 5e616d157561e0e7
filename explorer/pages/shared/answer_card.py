"""Documents as cards: the question, the choices, what both models made of them."""

import html
from collections.abc import Sequence
from typing import Any

from explorer.analysis import numbers
from explorer.lm_eval_io.samples import SampleAnswer
from explorer.tasks.preview import Question

PROMPT_SHOWN = 700
"""Letters of a prompt's end that are shown at once; examples before a question are long."""
STYLE = """<style>
.document {border: 1px solid color-mix(in srgb, currentColor 18%, transparent); border-radius: 8px;
  padding: .7rem .9rem .5rem; margin: 0 0 .8rem; max-width: 62rem;}
.document header {display: flex; flex-wrap: wrap; gap: .3rem .9rem; align-items: baseline;
  font-size: .88rem;}
.document .lost {color: light-dark(#b34700, #f0904f); font-weight: 600;}
.document .gained {color: light-dark(#00734f, #2fc79d); font-weight: 600;}
.document .prompt {white-space: pre-wrap; overflow-wrap: anywhere; margin: .45rem 0 .35rem;
  font-size: 1.02rem; line-height: 1.45;}
.document details summary {cursor: pointer; opacity: .68; font-size: .84rem;}
.document table {border-collapse: collapse; width: 100%; font-size: .92rem;
  font-variant-numeric: tabular-nums;}
.document th, .document td {padding: .22rem .6rem .22rem 0; text-align: left;
  border-bottom: 1px solid color-mix(in srgb, currentColor 10%, transparent);}
.document th {font-weight: 400; opacity: .68; font-size: .82rem;}
.document td.number, .document th.number {text-align: right; white-space: nowrap; width: 8.5rem;}
.document tr.right td:first-child {font-weight: 600;}
.document tr:last-child td {border-bottom: none;}
.document .text {overflow-wrap: anywhere; white-space: pre-wrap;}
@media (max-width: 640px) {
  .document td.number, .document th.number {width: 4.6rem; padding-right: .2rem;}
}
</style>"""
MARK = ' <span title="right">✓</span>'
CHOSEN = '<span title="chosen">●</span> '


def card(
    row: dict[Any, Any],
    run: SampleAnswer | None,
    reference: SampleAnswer | None,
    names: tuple[str, str],
) -> str:
    """One document as HTML; every text is escaped.

    Args:
        row: Of `outcomes.outcomes`.
        run: What the run made of it; None where its samples are not kept.
        reference: What the reference made of it.
        names: Of the run and of the reference.
    """
    kept = run or reference
    head = (
        f'<span class="{row["outcome"]}">{row["outcome"]}</span>'
        f'<span class="quiet">document {row["doc_id"]}</span>{_margins(run, reference, names)}'
    )
    if kept is None:
        values = (
            f"{html.escape(names[0])} {numbers.significant(row['run'])}, "
            f"{html.escape(names[1])} {numbers.significant(row['reference'])}"
        )
        body = (
            f'<div class="quiet">{values} · document hash {html.escape(row["doc_hash"][:12])}</div>'
        )
    elif kept.choices:
        body = _prompt(kept.prompt) + _choices(run, reference, names)
    else:
        body = _prompt(kept.prompt) + _written(run, reference, kept.target, names)
    return f'<article class="document"><header>{head}</header>{body}</article>'


def question(one: Question) -> str:
    """One document as a model is asked it, before anybody has answered, as HTML."""
    head = f'<header><span class="quiet">document {one.doc_id}</span></header>'
    said = [(choice, place in one.right) for place, choice in enumerate(one.choices)]
    if one.target:
        said.append((one.target, True))
    rows = "".join(
        f'<tr{" class=right" if right else ""}><td class="text">{html.escape(text.strip())}'
        f"{MARK if right else ''}</td></tr>"
        for text, right in said
    )
    label = "choices" if len(one.choices) > 1 else "what should follow"
    table = f"<table><thead><tr><th>{label}</th></tr></thead><tbody>{rows}</tbody></table>"
    ends = "".join(f" {stop!r}" for stop in one.until)
    until = f'<div class="quiet">ends at{html.escape(ends)}</div>' if ends else ""
    body = _prompt(one.prompt) + (table if said else "") + until
    return f'<article class="document">{head}{body}</article>'


def _margins(
    run: SampleAnswer | None, reference: SampleAnswer | None, names: tuple[str, str]
) -> str:
    said = [
        f"{html.escape(name)} {_signed(one.margin)}"
        for name, one in zip(names, (run, reference), strict=True)
        if one is not None and one.margin is not None
    ]
    return f'<span class="quiet">margin {", ".join(said)}</span>' if said else ""


def _signed(value: float) -> str:
    return f"{'+' if value > 0 else ''}{numbers.significant(value)}".replace("-", "−")


def _prompt(prompt: str) -> str:
    if not prompt.strip():
        return '<div class="prompt quiet">No prompt: the choices are whole sentences.</div>'
    if len(prompt) <= PROMPT_SHOWN:
        return f'<div class="prompt">{html.escape(prompt)}</div>'
    return (
        f'<div class="prompt">…{html.escape(prompt[-PROMPT_SHOWN:])}</div>'
        f"<details><summary>The whole prompt, {len(prompt):,} letters</summary>"
        f'<div class="prompt">{html.escape(prompt)}</div></details>'
    )


def _choices(
    run: SampleAnswer | None, reference: SampleAnswer | None, names: tuple[str, str]
) -> str:
    kept = run or reference
    assert kept is not None, "the caller has one of the two"
    rows = []
    for place, choice in enumerate(kept.choices):
        cells = "".join(_likelihood(one, place) for one in (run, reference))
        mark = MARK if choice.right else ""
        shown = html.escape(choice.text.strip())
        kind = ' class="right"' if choice.right else ""
        rows.append(f'<tr{kind}><td class="text">{shown}{mark}</td>{cells}</tr>')
    heads = "".join(f'<th class="number">{html.escape(name)}</th>' for name in names)
    return (
        f"<table><thead><tr><th>log-likelihood</th>{heads}</tr>"
        f"</thead><tbody>{''.join(rows)}</tbody></table>"
    )


def _likelihood(one: SampleAnswer | None, place: int) -> str:
    if one is None or place >= len(one.choices):
        return f'<td class="number">{numbers.MISSING}</td>'
    choice = one.choices[place]
    value = numbers.significant(choice.loglikelihood).replace("-", "−")
    return f'<td class="number">{CHOSEN if choice.chosen else ""}{value}</td>'


def _written(
    run: SampleAnswer | None, reference: SampleAnswer | None, target: str, names: tuple[str, str]
) -> str:
    said: Sequence[tuple[str, str]] = [
        ("expected", target),
        *(
            (name, one.response if one else numbers.MISSING)
            for name, one in zip(names, (run, reference), strict=True)
        ),
    ]
    rows = "".join(
        f'<tr><th>{html.escape(name)}</th><td class="text">{html.escape(text)}</td></tr>'
        for name, text in said
    )
    return f"<table><tbody>{rows}</tbody></table>"
