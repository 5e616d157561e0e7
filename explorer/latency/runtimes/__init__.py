"""What runs a model: transformers, llama.cpp or an endpoint.

protocol.py           Runtime, which every local runtime implements
open_runtime.py       the runtime that a model's name and a spec mean
pytorch.py            transformers, eager or compiled with a static cache
allocator_peak.py     its peak memory on an accelerator
llamacpp.py           GGUF files in llama.cpp (extra `edge`)
gguf_check.py         a GGUF file written, and kept if llama.cpp reads the same model
endpoint_client.py    the HTTP client: keys, failures, retries
endpoint_errors.py    what a server says when it refuses a request, and what to do
endpoint_fields.py    the fields that an endpoint refuses, and what is sent instead
endpoint_stream.py    one timed, streamed request to an endpoint
endpoint_logprobs.py  log-probabilities of a given text from an endpoint
"""
