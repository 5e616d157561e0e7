"""Every page can be read and used by everybody."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser

from explorer.pages.dashboard import navigation
from tests import records

pytestmark = pytest.mark.browser
WAIT_MS = 120_000
RULES = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}}
CONTEXT = {
    "exclude": [
        # The folded sidebar is a scrollable region with nothing to focus.
        ["[data-testid=stSidebarContent]"],
        # Labels of disabled controls, which WCAG 1.4.3 exempts; axe does not see whose they are.
        ["[data-testid=stWidgetLabel][disabled]"],
    ]
}
"""What Streamlit draws and axe-core cannot judge, each with its reason."""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_core_finds_nothing(theme, store_root, dashboard, browser: Browser, settled):
    """On no page, in neither theme: names, roles, contrast of at least 4.5:1, keyboard access."""
    records.write_study(store_root)
    context = browser.new_context(color_scheme=theme, viewport={"width": 1440, "height": 900})
    page = context.new_page()
    page.set_default_timeout(WAIT_MS)
    found = []
    views = ["?view=Ranking", "?view=By+task", "?view=Where+the+time+goes"]
    for name in (*navigation.PAGES, *views):
        page.goto(f"{dashboard}/{'' if name == 'explore' else name}")
        settled(page)
        for violation in Axe().run(page, context=CONTEXT, options=RULES).response["violations"]:
            nodes = [node["html"][:160] for node in violation["nodes"]]
            found.append((name, violation["id"], len(nodes), nodes[:2]))
    context.close()

    assert found == []


def test_every_page_has_one_heading_and_a_title_of_its_own(store_root, dashboard, page, settled):
    """A screen reader and a row of tabs tell the pages apart."""
    records.write_study(store_root)
    titles = []
    for name, (title, _) in navigation.PAGES.items():
        page.goto(f"{dashboard}/{'' if name == 'explore' else name}")
        settled(page)
        assert page.locator("h1").count() == 1, name
        assert title in page.title()
        titles.append(page.title())

    assert len(set(titles)) == len(titles)
    assert all(title.endswith("Distill Explorer") for title in titles)
