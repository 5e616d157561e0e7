"""What a page says, as one text, and what its charts show."""

import json
from typing import Any

from streamlit.testing.v1 import AppTest


def text_of(page: AppTest) -> str:
    """All that the page says outside its widgets, HTML included."""
    parts = [*page.markdown, *page.caption, *page.info, *page.error, *page.subheader]
    html = [element.proto.body for element in page.get("html")]
    return "\n".join([*(str(part.value) for part in parts), *html])


def charts_of(page: AppTest) -> list[dict[str, Any]]:
    """The figures of the page's charts: Plotly's JSON."""
    components = [element.proto for element in page.get("bidi_component")]
    return [
        json.loads(json.loads(component.json)["figure"])
        for component in components
        if component.component_name == "plotly_chart"
    ]
