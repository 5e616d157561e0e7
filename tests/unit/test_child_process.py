"""What a killed process leaves behind: nothing."""

import os
import signal
import subprocess
import sys

import psutil

from explorer.processes import child_process

GRANDCHILD = "import time; time.sleep(120)"
CHILD = f"""
import os, subprocess, sys, time
from explorer.processes import child_process
child_process.EVERY_S = 0.05
child_process.end_with_parent()
grandchild = subprocess.Popen([sys.executable, "-I", "-S", "-c", {GRANDCHILD!r}])
print(os.getpid(), grandchild.pid, child_process.PARENT in os.environ, flush=True)
time.sleep(120)
"""
PARENT = f"""
import subprocess, sys
from explorer.processes import child_process
subprocess.run([sys.executable, "-c", {CHILD!r}], env=child_process.environment())
"""


def test_a_child_and_its_children_end_with_a_killed_parent():
    """SIGKILL leaves a parent no time to end its children: they notice it themselves."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    child, grandchild, has_variable = parent.stdout.readline().split()
    family = [psutil.Process(int(pid)) for pid in (child, grandchild)]

    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    _, alive = psutil.wait_procs(family, timeout=30)

    assert not alive
    assert has_variable == "False", "a child of the child would take its grandparent for its parent"


def test_a_process_that_somebody_else_started_stays(monkeypatch):
    """Only what says whose child it is ends with a parent."""
    monkeypatch.delenv(child_process.PARENT, raising=False)
    num_threads = len(psutil.Process().threads())

    child_process.end_with_parent()

    assert len(psutil.Process().threads()) == num_threads
    assert child_process.environment()[child_process.PARENT] == str(os.getpid())
