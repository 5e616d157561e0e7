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

NAMES_ITS_DEVICE = """
import json, os, socket, sys, time
from pathlib import Path
from explorer import paths
from explorer.store.progress import Progress

run_id = sys.argv[1]
progress = Progress(paths.store_root(), run_id)
progress("train")
print("CUDA_VISIBLE_DEVICES", os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
began = time.monotonic()
time.sleep(3)
said = {
    "device": os.environ.get("CUDA_VISIBLE_DEVICES"),
    "host": socket.gethostname(),
    "began": began,
    "ended": time.monotonic(),
}
(paths.store_root() / run_id / "device.json").write_text(json.dumps(said))
progress.write_status(state="finished")
"""
"""A run that prints the device that the queue gave it, and leaves it with its times in a file."""
