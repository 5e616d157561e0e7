"""llama.cpp's own HTTP server as a program: from the package xllamacpp, without a compiler.

The package has the server of llama.cpp, but no program with its command line. This reads the
options that a run gives.
"""

import argparse
import signal
import stat
import sys
from pathlib import Path


def install(folder: Path) -> Path:
    """Make the program in a folder; returns its path."""
    folder.mkdir(exist_ok=True)
    program = folder / "llama-server"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IEXEC)
    return program


def main() -> None:
    """Serve until told to end."""
    import xllamacpp

    parser = argparse.ArgumentParser(prog="llama-server", allow_abbrev=False)
    parser.add_argument("--model", required=True)
    parser.add_argument("--alias", required=True)
    parser.add_argument("--device", choices=["none"], required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--parallel", type=int, required=True)
    parser.add_argument("--ctx-size", type=int, required=True)
    parser.add_argument("--no-warmup", action="store_true")
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    given = parser.parse_args()
    params = xllamacpp.CommonParams()
    params.model.path = given.model
    params.model_alias = {given.alias}
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = given.threads
    params.n_parallel, params.n_ctx = given.parallel, given.ctx_size
    params.warmup = not given.no_warmup
    params.hostnames, params.port = [given.host], given.port
    params.reuse_port = False
    server = xllamacpp.Server(params)
    print(f"listening on {server.listening_address}", flush=True)
    signal.sigwait([signal.SIGTERM, signal.SIGINT])


if __name__ == "__main__":
    main()
