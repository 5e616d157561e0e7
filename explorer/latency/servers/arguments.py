"""Which arguments a spec may pass to a server.

A spec may come from anybody, and a server has arguments that import code, read files, fetch models
or listen elsewhere; each release brings new ones. So a spec alone passes only those that are known
to set how the server computes. Others need a line in the user's own configuration.

    arguments.refuse(engines.SERVERS["vllm"], ("--max-model-len", "4096"))
"""

import re

from explorer import paths
from explorer.consent import user_config
from explorer.errors import BadInput
from explorer.latency.servers.engines import Server
from explorer.specs.serve import Engine, options

PLAIN = re.compile(r"[A-Za-z0-9_.,:+-]{1,80}")
"""Values that name a number or a choice, never a file, an address or code."""
FREE: dict[Engine, str] = {
    "vllm": """
        --async-scheduling --attention-backend --block-size --cpu-offload-gb --disable-log-requests
        --disable-log-stats --dtype --enable-chunked-prefill --enable-prefix-caching --enforce-eager
        --gpu-memory-utilization --kv-cache-dtype --max-model-len --max-num-batched-tokens
        --max-num-seqs --no-async-scheduling --no-enable-chunked-prefill
        --no-enable-prefix-caching --num-gpu-blocks-override --optimization-level -O -O0 -O1 -O2 -O3
        --quantization -q --scheduling-policy --seed --stream-interval --swap-space
        --uvicorn-log-level
        """,
    "sglang": """
        --attention-backend --chunked-prefill-size --context-length --decode-attention-backend
        --disable-cuda-graph --disable-overlap-schedule --disable-radix-cache --dtype
        --enable-mixed-chunk --enable-torch-compile --kv-cache-dtype --log-level
        --max-prefill-tokens --max-running-requests --max-total-tokens --mem-fraction-static
        --num-continuous-decode-steps --page-size --prefill-attention-backend --quantization
        --random-seed --sampling-backend --schedule-conservativeness --schedule-policy
        --skip-server-warmup --stream-interval --torch-compile-max-bs
        """,
    "llama.cpp": """
        --batch-size -b --cache-prompt --cache-reuse --cache-type-k -ctk --cache-type-v -ctv
        --cont-batching -cb --ctx-size -c --flash-attn -fa --kv-unified -kvu --log-verbosity -lv
        --mlock --mmap --no-cache-prompt --no-cont-batching -nocb --no-kv-unified -no-kvu --no-mmap
        --no-repack -nr --no-warmup --numa --parallel -np --poll --prio --repack --seed -s
        --swa-full --threads -t --threads-batch -tb --threads-http --ubatch-size -ub --verbose -v
        """,
    "transformers": """
        --attn-implementation --cb-block-size --cb-max-batch-tokens --cb-max-memory-percent
        --cb-num-blocks --cb-use-cuda-graph --compile --continuous-batching --default-seed --dtype
        --log-level --no-compile --no-continuous-batching --quantization
        """,
}
"""Options of each server that only set how it computes."""


def refuse(server: Server, arguments: tuple[str, ...]) -> None:
    """Refuse arguments that neither only set how a server computes nor are allowed by the user.

    Raises:
        BadInput: Names the first, and the line that allows it on this machine.
    """
    allowed = user_config.read_config().allowed_server_arguments
    for name, values in options(arguments):
        exact = f"{name}={values[0]}" if len(values) == 1 else name
        if name in allowed or exact in allowed:
            continue
        free = name in FREE[server.engine].split()
        odd = [value for value in values if not PLAIN.fullmatch(value)]
        if free and not odd:
            continue
        why = (
            f"with the value {odd[0]!r} is more than a number or a choice"
            if free
            else f"is not one of those that only set how {server.label} computes"
        )
        raise BadInput(
            f"latency.serve passes {name} to {server.label}, which {why}, so a spec alone may not "
            "pass it: it could read files or run code. If you want it on this machine, write "
            f"allowed_server_arguments: [{exact!r}] into {paths.config_file()}."
        )
