"""Exceptions from the security rules say why."""

import re

from tests.conftest import ROOT

EXCEPTION = re.compile(r"#\s*noqa:\s*[\w, ]*\bS\d{3}\b(?P<reason>.*)")


def test_each_exception_from_a_security_rule_states_its_reason():
    """Whoever reads the code sees why ruff's rule does not apply there."""
    found = [
        (path.relative_to(ROOT), match["reason"].strip(" -"))
        for path in (ROOT / "explorer").rglob("*.py")
        for match in EXCEPTION.finditer(path.read_text(encoding="utf-8"))
    ]

    assert found
    assert [path for path, reason in found if len(reason) < 8] == []
