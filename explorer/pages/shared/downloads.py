"""Download buttons for a table and its figure, or for one run. Files are made on click."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import plotly.graph_objects as go
import streamlit as st

from explorer.charts import export
from explorer.errors import ExplorerError
from explorer.lm_eval_io import export_run
from explorer.pages.shared import text_format

FORMAT_NAMES = {
    "csv": "CSV",
    "xlsx": "Excel",
    "parquet": "Parquet",
    "md": "Markdown",
    "latex": "LaTeX",
    "json": "JSON",
    "html": "HTML",
    "png": "PNG",
    "svg": "SVG",
    "lm-eval": "lm-eval (zip)",
    "model-index": "Model card (YAML)",
    "eval-results": "Hub results (YAML)",
}
EXTENSIONS = {"latex": "tex", "lm-eval": "zip", "model-index": "md", "eval-results": "yaml"}


def export_popover(write: Callable[[str], bytes], figure: go.Figure, page: str, name: str) -> None:
    """A popover that offers a table and its figure in every format.

    Args:
        write: Returns the table's bytes in a format of `export.TABLE_FORMATS`.
        figure: Drawn with the light template, since the file gets a white background.
        page: Prefix of the widgets' keys.
        name: File name without extension.
    """
    with st.popover("Export", icon=":material/download:", key=f"{page}_export"):
        st.markdown("**Table**")
        with st.container(horizontal=True, width=300):
            for format, mime in export.TABLE_FORMATS.items():
                _download(format, mime, partial(write, format), page, name)
        st.markdown("**Figure**")
        with st.container(horizontal=True, width=300):
            for format, mime in export.FIGURE_FORMATS.items():
                _download(format, mime, partial(_drawn, figure, format), page, name)


def run_buttons(root: Path, run_id: str) -> None:
    """Buttons that download one run's scores in formats that other tools read.

    A button is disabled, with the reason as its help, if its format cannot hold this run.
    """
    with st.container(horizontal=True, key="run_export"):
        for format, mime in export_run.FORMATS.items():
            try:
                # The zip is made on click; the YAML is small, and making it shows if it is refused.
                make = partial(export_run.export_bytes, root, run_id, format)
                data = make if format == "lm-eval" else make()
                reason = None
            except ExplorerError as error:
                data, reason = b"", str(error)
            st.download_button(
                FORMAT_NAMES[format],
                data,
                f"{run_id}.{EXTENSIONS[format]}",
                mime,
                key=f"run_{format}",
                on_click="ignore",
                disabled=reason is not None,
                help=text_format.md(reason) if reason else None,
            )


def _drawn(figure: go.Figure, format: str) -> bytes:
    """The figure as a file, on white."""
    white = go.Figure(figure).update_layout(paper_bgcolor="white", plot_bgcolor="white")
    return export.write_figure(white, format)


def _download(format: str, mime: str, make: partial[bytes], page: str, name: str) -> None:
    st.download_button(
        FORMAT_NAMES[format],
        make,
        f"{name}.{EXTENSIONS.get(format, format)}",
        mime,
        key=f"{page}_{format}",
        on_click="ignore",
    )
