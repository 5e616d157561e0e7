"""What holds for every page: everybody can read and use it, and it comes from this server alone."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

from explorer.pages.dashboard import navigation
from tests import records

# One walk, of 20 looks, stands for three tests and may take as long as they.
pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]
BACKGROUND = "getComputedStyle(document.querySelector('.stApp')).backgroundColor"
# The browser fetches the tab's icon by itself, where no test sees it.
SOURCES = """[...document.querySelectorAll('link[href]:not([rel=canonical]), [src]')]
  .map(element => element.src || element.href)"""
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
VIEWS = ("?view=Ranking", "?view=By+task", "?view=Where+the+time+goes")


@dataclass
class Walk:
    """What a browser met on its way through all pages."""

    url: str
    """The dashboard's address."""
    titles: dict[str, str] = field(default_factory=dict)
    headings: dict[str, int] = field(default_factory=dict)
    """How many first headings a page has."""
    backgrounds: dict[str, set[str]] = field(default_factory=dict)
    """A page's colours in the themes."""
    violations: list[tuple[Any, ...]] = field(default_factory=list)
    """Page, theme, and what axe-core found."""
    fetched: set[str] = field(default_factory=set)
    """Every address that the browser asked for, or that a page names as a source."""
    icon: str = ""


@pytest.fixture(scope="module")
def walk(
    start_app: Callable[..., Any],
    own_folders: dict[str, str],
    open_window: Callable[[], Any],
    settled: Callable[[Page], None],
    tmp_path_factory: pytest.TempPathFactory,
) -> Walk:
    """Every page and view in both themes, on a study and a run in every state."""
    root = tmp_path_factory.mktemp("every_state")
    records.write_study(root)
    records.write_every_state(root)
    with start_app(root, **own_folders) as url, open_window() as page:
        page.set_viewport_size({"width": 1440, "height": 900})
        seen = Walk(url)
        page.context.on("request", lambda request: seen.fetched.add(request.url))
        page.on(
            "websocket", lambda socket: seen.fetched.add(socket.url.replace("ws://", "http://"))
        )
        for name in (*navigation.PAGES, *VIEWS):
            page.emulate_media(color_scheme="light")
            page.goto(f"{url}/{'' if name == 'explore' else name}")
            seen.backgrounds[name] = set()
            for theme in ("light", "dark"):
                page.emulate_media(color_scheme=theme)
                settled(page)
                seen.backgrounds[name].add(page.evaluate(BACKGROUND))
                seen.violations += [(name, theme, *found) for found in _violations(page, theme)]
            seen.headings[name] = page.locator("h1").count()
            seen.titles[name] = page.title()
            seen.fetched.update(page.evaluate(SOURCES))
        seen.icon = page.locator("link[rel~=icon]").first.get_attribute("href") or ""
    return seen


def _violations(page: Page, theme: str) -> Iterator[tuple[str, int, list[str]]]:
    """Rule, number of elements and the first of them, for all that axe-core finds."""
    options = {"runOnly": RULES[theme], "resultTypes": ["violations"]}
    for violation in Axe().run(page, context=CONTEXT, options=options).response["violations"]:
        nodes = [node["html"][:160] for node in violation["nodes"]]
        yield violation["id"], len(nodes), nodes[:2]


def test_every_page_serves_everybody_in_both_themes(walk: Walk):
    """Nothing that axe-core finds: names, roles, contrast of at least 4.5:1, access by keyboard."""
    assert walk.violations == []
    assert {name: len(colours) for name, colours in walk.backgrounds.items()} == dict.fromkeys(
        (*navigation.PAGES, *VIEWS), 2
    )


def test_every_page_has_one_heading_and_a_title_of_its_own(walk: Walk):
    """What a tab and a screen reader say tells the pages apart."""
    assert walk.headings == dict.fromkeys((*navigation.PAGES, *VIEWS), 1)
    titles = {name: walk.titles[name] for name in navigation.PAGES}
    assert len(set(titles.values())) == len(titles)
    for name, title in titles.items():
        assert navigation.PAGES[name][0] in title
        assert title.endswith("Distill Explorer")


def test_no_page_fetches_anything_from_another_server(walk: Walk):
    """Icons, fonts, scripts and pictures all come from the dashboard itself, on every page."""
    assert "published" in walk.titles
    assert len(walk.fetched) > 50
    addresses = {url.removeprefix("blob:") for url in walk.fetched if not url.startswith("data:")}
    assert {url for url in addresses if not url.startswith(f"{walk.url}/")} == set()
    assert walk.icon.startswith("data:image/svg+xml")
