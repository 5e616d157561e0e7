"""A run without a model, for tests of the queue."""

STAND_IN = """
import sys, time
from explorer import paths
from explorer.errors import RunCancelled
from explorer.store.progress import Progress

run_id, num_steps = sys.argv[1], int(sys.argv[2])
progress = Progress(paths.store_root(), run_id)
began = time.time()
try:
    for step in range(num_steps):
        progress("train", step, num_steps, "steps")
        time.sleep(0.1)
    progress.write_status(state="finished", began=began, ended=time.time())
except RunCancelled as error:
    progress.write_status(state="cancelled", error=str(error), began=began)
"""
"""What `explorer run` does to the store, without a model."""
