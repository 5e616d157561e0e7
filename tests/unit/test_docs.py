"""The documentation cannot lie: what exists is documented, what is linked exists."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from explorer.pages.dashboard import navigation

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "guide.md"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")])
LINK = re.compile(r"\]\(([^)\s]+)\)|(?:src|srcset|href)=\"([^\"]+)\"")


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def without_code(text: str) -> str:
    """Prose only: no fenced blocks and no code spans."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S))


def anchors(path: Path) -> set[str]:
    """The anchors that a document's headings get."""
    headings = re.findall(
        r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", read(path), flags=re.M | re.S), re.M
    )
    kept = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.replace(" ", "-") for heading in kept}


def commands() -> list[str]:
    """Names of the commands of `explorer`."""
    import typer

    from explorer import cli

    found = sorted(typer.main.get_command(cli.app).commands)  # type: ignore[attr-defined]
    assert len(found) >= 10, found
    return found


def test_every_command_is_in_the_guide():
    """A person who reads the guide meets every command of `explorer`."""
    guide = read(GUIDE)

    missing = [name for name in commands() if not re.search(rf"`explorer {name}\b", guide)]

    assert not missing, f"docs/guide.md says nothing about: {', '.join(missing)}"


def test_the_command_reference_is_current():
    """docs/cli.md is what the commands say of themselves; `make docs` writes it."""
    command = [sys.executable, "-m", "typer", "explorer.cli", "utils", "docs", "--name", "explorer"]

    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"COLUMNS": "100"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )

    assert done.stdout.strip() == read(ROOT / "docs" / "cli.md").strip(), "run `make docs`"


def test_every_page_is_in_the_guide():
    """Each page of the dashboard has a section of the guide under the title it shows."""
    titles = [title for title, _ in navigation.PAGES.values()]
    assert len(titles) >= 3, titles

    missing = [title for title in titles if f"### {title}\n" not in read(GUIDE)]

    assert not missing, f"docs/guide.md has no section: {', '.join(missing)}"


def test_every_column_is_documented():
    """Each column of the exported table is explained, in the words of the one list of columns."""
    from explorer.analysis.cost import economics
    from explorer.store import columns as store_columns

    columns = {**store_columns.RECORD, **store_columns.RETENTION, **store_columns.COST}
    text = read(ROOT / "docs" / "columns.md")

    missing = [
        name for name, column in columns.items() if f"| `{name}` | {column.meaning} |" not in text
    ]
    extra = set(re.findall(r"^\| `(\w+)`", text, re.M))
    extra -= {*columns, *economics.COLUMNS}

    assert not missing, f"docs/columns.md misses, or says in other words: {', '.join(missing)}"
    assert not extra, f"docs/columns.md explains what there is not: {', '.join(sorted(extra))}"


def test_every_make_target_is_described():
    """`make help` says what every target that people type is for."""
    makefile = read(ROOT / "Makefile")
    phony = re.search(r"^\.PHONY: (.+)$", makefile, re.M)
    assert phony, "the Makefile should list its targets as .PHONY"
    described = set(re.findall(r"^([a-z-]+):.*## ", makefile, re.M))

    # Two parts of the set-up that other targets call.
    assert set(phony[1].split()) - described == {"starter", "chromium"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_resolve(document):
    """A link within the project leads to a file, and its anchor to a heading, that is there."""
    links = [first or second for first, second in LINK.findall(without_code(read(document)))]

    broken = []
    for link in links:
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)

    assert not broken, f"{document.name} links to what is not there: {', '.join(broken)}"


def test_the_documents_are_found():
    """The link check reads the README, the guide and the decisions."""
    names = {str(path.relative_to(ROOT)) for path in DOCUMENTS}

    assert {"README.md", "CHANGELOG.md", "docs/guide.md", "docs/README.md"} <= names
    assert sum(name.startswith("docs/decisions/") for name in names) >= 4


def test_every_threat_names_its_test():
    """Each row of docs/security.md has a threat, what is done, and a test that exists."""
    lines = read(ROOT / "docs" / "security.md").splitlines()
    rows = [line for line in lines if line.startswith("| ") and not line.startswith("| Threat")]
    rows = [row for row in rows if not row.startswith("| :")]
    assert len(rows) > 10

    for row in rows:
        cells = [cell.strip() for cell in row.strip("|").split(" | ")]
        assert len(cells) == 3, row
        assert all(cells), row
        tests = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", cells[2])
        assert tests, f"no test: {row}"
        for path, name in tests:
            assert f"def {name}(" in read(ROOT / path), f"{path} has no {name}"
