"""What the dashboard's process loads."""

import os
import subprocess
import sys
from pathlib import Path

from tests import records

SCRIPT = """
import sys
from streamlit.testing.v1 import AppTest

page = AppTest.from_file("app.py", default_timeout=120).run()
assert not page.exception, page.exception
for name in ("run", "compare", "tasks"):
    page.switch_page(f"explorer/pages/{name}/{name}.py").run()
    assert not page.exception, page.exception
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


def test_the_dashboard_never_loads_a_model_library(root: Path, known_tasks: Path) -> None:
    """Opening pages on a filled store loads neither torch nor its friends nor Ray."""
    records.write_study(root)

    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=Path(__file__).parent.parent.parent,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )

    assert done.returncode == 0, done.stderr[-2000:]
    loaded = set(done.stdout.split())
    assert {"streamlit", "plotly", "explorer"} <= loaded
    assert loaded.isdisjoint({"torch", "transformers", "lm_eval", "accelerate", "ray"})
