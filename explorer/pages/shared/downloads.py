"""All formats of a table and its figure, or of one run; a file is made when it is asked for."""

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
ENDINGS = {"latex": "tex", "lm-eval": "zip", "model-index": "md", "eval-results": "yaml"}


def button(write: Callable[[str], bytes], figure: go.Figure, page: str, name: str) -> None:
    """Show the button.

    Args:
        write: Gives the table's bytes in a format of `export.TABLE_FORMATS`.
        figure: In light ink: a file has no page behind it.
        page: Begins the widgets' keys.
        name: Of the files, without ending.
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


def of_run(root: Path, run_id: str) -> None:
    """Buttons that take one run's scores away as other tools read them.

    What a format has no place for is said on its button, which then does nothing.
    """
    with st.container(horizontal=True, key="run_export"):
        for format, mime in export_run.FORMATS.items():
            try:
                # A zip is made when it is asked for; the YAML is small, and may be refused.
                make = partial(export_run.export_bytes, root, run_id, format)
                data = make if format == "lm-eval" else make()
                why = None
            except ExplorerError as error:
                data, why = b"", str(error)
            st.download_button(
                FORMAT_NAMES[format],
                data,
                f"{run_id}.{ENDINGS[format]}",
                mime,
                key=f"run_{format}",
                on_click="ignore",
                disabled=why is not None,
                help=text_format.md(why) if why else None,
            )


def _drawn(figure: go.Figure, format: str) -> bytes:
    """The figure on white."""
    white = go.Figure(figure).update_layout(paper_bgcolor="white", plot_bgcolor="white")
    return export.write_figure(white, format)


def _download(format: str, mime: str, make: partial[bytes], page: str, name: str) -> None:
    st.download_button(
        FORMAT_NAMES[format],
        make,
        f"{name}.{ENDINGS.get(format, format)}",
        mime,
        key=f"{page}_{format}",
        on_click="ignore",
    )
