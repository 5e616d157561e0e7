"""What a page says, as one text."""

from streamlit.testing.v1 import AppTest


def text_of(page: AppTest) -> str:
    """All that the page says outside its widgets, HTML included."""
    parts = [*page.markdown, *page.caption, *page.info, *page.error, *page.subheader]
    html = [element.proto.body for element in page.get("html")]
    return "\n".join([*(str(part.value) for part in parts), *html])
