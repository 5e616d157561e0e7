"""Every page can be read and used by everybody."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

from explorer.pages.dashboard import navigation

pytestmark = pytest.mark.browser
BACKGROUND = "getComputedStyle(document.querySelector('.stApp')).backgroundColor"
RULES = {
    "light": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]},
    "dark": {"type": "rule", "values": ["color-contrast"]},
}
"""What axe-core looks for; the themes differ in nothing but their colours."""
CONTEXT = {
    "exclude": [
        # The folded sidebar is a scrollable region with nothing to focus.
        ["[data-testid=stSidebarContent]"],
        # Labels of disabled controls, which WCAG 1.4.3 exempts; axe does not see whose they are.
        ["[data-testid=stWidgetLabel][disabled]"],
    ]
}
"""What Streamlit draws and axe-core cannot judge, each with its reason."""


def test_every_page_serves_everybody_in_both_themes(study, page: Page, settled):
    """One heading a page, a title of its own, and nothing that axe-core finds in light or dark.

    axe-core looks at names, roles, contrast of at least 4.5:1 and access by keyboard.
    """
    page.set_viewport_size({"width": 1440, "height": 900})
    titles, found = [], []
    views = ["?view=Ranking", "?view=By+task", "?view=Where+the+time+goes"]
    for name in (*navigation.PAGES, *views):
        page.emulate_media(color_scheme="light")
        page.goto(f"{study.url}/{'' if name == 'explore' else name}")
        settled(page)
        backgrounds = []
        for theme in ("light", "dark"):
            page.emulate_media(color_scheme=theme)
            settled(page)
            backgrounds.append(page.evaluate(BACKGROUND))
            options = {"runOnly": RULES[theme], "resultTypes": ["violations"]}
            seen = Axe().run(page, context=CONTEXT, options=options).response["violations"]
            for violation in seen:
                nodes = [node["html"][:160] for node in violation["nodes"]]
                found.append((name, theme, violation["id"], len(nodes), nodes[:2]))
        assert backgrounds[0] != backgrounds[1], name
        assert page.locator("h1").count() == 1, name
        if name in navigation.PAGES:
            assert navigation.PAGES[name][0] in page.title()
            titles.append(page.title())

    assert found == []
    assert len(set(titles)) == len(titles)
    assert all(title.endswith("Distill Explorer") for title in titles)
