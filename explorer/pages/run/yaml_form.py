"""The order as YAML: to read, to download, and to edit with each error at its line."""

import re

import streamlit as st

from explorer.errors import BadInput
from explorer.pages.run import run_spec
from explorer.pages.shared import glossary, text_format
from explorer.specs import RunSpec, SweepSpec

LINES_AROUND = 2
"""Lines of the YAML that an error shows before and after its own."""


def edited_yaml() -> SweepSpec | RunSpec:
    """The study as YAML that a person edits; it starts as what the form described last.

    Raises:
        BadInput: It is not a valid study. What is wrong stands under the field, with the lines
            around the first error.
    """
    st.session_state.setdefault("run_yaml", st.session_state.get("run_last_yaml", ""))
    st.caption("This text is the order. The fields above do not count while it is open.")
    text = st.text_area("Study", height=420, key="run_yaml")
    try:
        return run_spec.from_yaml(text)
    except BadInput as error:
        if excerpt := lines_of_error(text, str(error)):
            st.code(excerpt, language="yaml")
        st.error(text_format.md(str(error)), icon=":material/error:")
        raise BadInput("The YAML has an error: see under it.") from error


def lines_of_error(text: str, message: str) -> str:
    """The lines around the first place that an error names, its own marked; empty if it names none.

    Args:
        text: The YAML.
        message: The error, as in `The YAML, line 3, column 1: ...`.
    """
    place = re.search(r"\bline (\d+)", message)
    lines = text.splitlines()
    if not place or not 1 <= int(place[1]) <= len(lines):
        return ""
    number = int(place[1])
    first = max(1, number - LINES_AROUND)
    return "\n".join(
        f"{'→' if at == number else ' '} {at:3} {line}"
        for at, line in enumerate(lines[first - 1 : number + LINES_AROUND], start=first)
    )


def edit(text: str) -> None:
    """Put a study into the form as YAML; call it before the form is drawn."""
    st.session_state["run_as_yaml"] = True
    st.session_state["run_yaml"] = text


def yaml_expander(study: SweepSpec | RunSpec) -> None:
    """The study as YAML, to read and to download."""
    text = study.to_yaml()
    if not st.session_state.get("run_as_yaml"):
        st.session_state["run_last_yaml"] = text
        # The next time that it is opened it starts from the form again.
        st.session_state.pop("run_yaml", None)
    with st.expander("Show as YAML"):
        st.code(text, language="yaml", height=320)
        st.download_button(
            "Download",
            lambda: text,
            f"{study.name}.yaml",
            "application/yaml",
            key="run_download",
            on_click="ignore",
            help=glossary.TERMS["yaml"],
        )
