"""Tables and figures as the bytes of files.

Text that a spreadsheet would run as a formula is escaped, because a run may have any name and
its table goes to other people.
"""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from explorer.analysis.tables import run_table
from explorer.charts import draw_image, workbook
from explorer.errors import BadInput, ExplorerError
from explorer.processes import child_process

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
MARKDOWN_SIGNS = re.compile(r"[|\\`*<]|(?<!\w)_|_(?!\w)")
"""Signs of a name that Markdown would take for its own; an underscore within a word is none."""
TABLE_FORMATS = {
    "csv": "text/csv",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "parquet": "application/vnd.apache.parquet",
    "md": "text/markdown",
    "latex": "application/x-tex",
    "json": "application/json",
}
"""Formats of tables and their MIME types."""
FIGURE_FORMATS = {"html": "text/html", "png": "image/png", "svg": "image/svg+xml"}
"""Formats of figures and their MIME types."""
DRAWING_TIMEOUT_S = 30.0
"""A figure takes 2 to 5 s, most of it the start of the browser."""


def write_runs(runs: pd.DataFrame, format: str) -> bytes:
    """Runs as the bytes of a file.

    csv, xlsx, parquet and json hold numbers, one row per run, with units in the column names;
    md and latex hold the formatted comparison.

    Raises:
        BadInput: An unknown format.
    """
    return write_table(run_table.raw_table(runs), run_table.comparison_table(runs), format)


def write_table(raw: pd.DataFrame, words: pd.DataFrame, format: str) -> bytes:
    """A table as the bytes of a file.

    Args:
        raw: Numbers with units in the column names, for csv, xlsx, parquet and json.
        words: The same rows as text, for md and latex.
        format: A key of `TABLE_FORMATS`.

    Raises:
        BadInput: An unknown format.
    """
    writers: dict[str, Callable[[pd.DataFrame], bytes]] = {
        "csv": _csv,
        "xlsx": workbook.write_workbook,
        "parquet": _parquet,
        "md": _markdown,
        "latex": _latex,
        "json": _json,
    }
    if format not in writers:
        raise BadInput(f"Unknown table format {format!r}. Choose {', '.join(writers)}.")
    return writers[format](words if format in ("md", "latex") else raw)


def write_figure(
    fig: go.Figure, format: str, *, width: int = 1200, height: int | None = None
) -> bytes:
    """A figure as the bytes of a file; a PNG has twice the pixels of `width`.

    Raises:
        BadInput: An unknown format.
        ExplorerError: PNG or SVG without a Chrome or Chromium that answers on this machine.
    """
    if format not in FIGURE_FORMATS:
        offered = ", ".join(FIGURE_FORMATS)
        raise BadInput(f"Unknown figure format {format!r}. Choose {offered}.")
    if format == "html":
        return str(fig.to_html(include_plotlyjs=True, full_html=True)).encode()
    size = {"width": width, "height": height or fig.layout.height, "scale": 2}
    request = {
        "figure": json.loads(str(fig.to_json())),
        "options": {"format": format, **size},
        "timeout_s": DRAWING_TIMEOUT_S,
    }
    drawn = subprocess.run(
        [sys.executable, "-m", "explorer.charts.draw_image"],
        input=json.dumps(request).encode(),
        capture_output=True,
        check=False,
        env=child_process.environment(),
    )
    if drawn.returncode == draw_image.NO_BROWSER:
        raise ExplorerError(
            f"{format.upper()} needs Chrome or Chromium, which could not be started or did not "
            f"answer within {DRAWING_TIMEOUT_S:g} s. Install one (apt-get install chromium) or "
            "choose HTML."
        )
    if drawn.returncode:
        raise RuntimeError(drawn.stderr.decode(errors="replace"))
    return drawn.stdout


def find_browser() -> str | None:
    """The path of the Chrome or Chromium that draws PNG and SVG; None if none is installed."""
    from choreographer.browsers.chromium import Chromium  # as kaleido itself does

    return Chromium.find_browser(skip_local=False)


def escape_formula(value: Any) -> Any:
    """The value; text that a spreadsheet would run as a formula gets a leading apostrophe.

    Source: OWASP, CSV Injection.
    """
    if isinstance(value, str) and value.startswith(FORMULA_STARTS):
        return "'" + value
    return value


def _csv(plain: pd.DataFrame) -> bytes:
    plain = plain.copy()
    for name in plain.columns[plain.map(lambda cell: isinstance(cell, str)).any()]:
        # A carriage return would end the line for some readers, even inside quotes.
        plain[name] = [
            escape_formula(cell).replace("\r", " ") if isinstance(cell, str) else cell
            for cell in plain[name]
        ]
    return plain.to_csv(index=False, lineterminator="\n").encode()


def _json(plain: pd.DataFrame) -> bytes:
    text = plain.to_json(orient="records", indent=1, double_precision=15)
    return (str(text) + "\n").encode()


def _parquet(plain: pd.DataFrame) -> bytes:
    return bytes(plain.to_parquet(index=False))


def _markdown(words: pd.DataFrame) -> bytes:
    table = words.map(lambda cell: MARKDOWN_SIGNS.sub(r"\\\g<0>", cell.replace("\n", " ")))
    left = ["left"] + ["right"] * (len(table.columns) - 1)
    text = table.to_markdown(index=False, colalign=left, disable_numparse=True)
    return f"{text}\n".encode()


def _latex(words: pd.DataFrame) -> bytes:
    """LaTeX for the package booktabs."""
    latex = words.rename(columns=_tex).map(_tex)
    # After \\\\ and \\midrule a bracket or a star would be an argument.
    first = latex.columns[0]
    latex[first] = [
        "{}" + cell if cell.lstrip()[:1] in ("[", "*") else cell for cell in latex[first]
    ]
    text = latex.to_latex(index=False, escape=False, column_format="l" + "r" * (words.shape[1] - 1))
    return str(text).encode()


def _tex(text: str) -> str:
    """Text with TeX's special characters escaped."""
    special = {
        "\\": r"\textbackslash{}",
        "{": r"\{",
        "}": r"\}",
        "$": r"\$",
        "%": r"\%",
        "&": r"\&",
        "#": r"\#",
        "_": r"\_",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "\n": " ",
        "–": "--",
        "×": r"$\times$",
    }
    return "".join(special.get(letter, letter) for letter in text)
