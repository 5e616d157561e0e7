"""What runs a model, behind one small protocol.

base.py       Runtime: prepare, stream, peak memory, close
in_torch.py   transformers, eager or compiled with a static cache
cuda_peak.py  its highest memory on CUDA
llamacpp.py   GGUF files in llama.cpp (extra `edge`)
endpoint.py   any OpenAI-compatible endpoint, one request
replies.py    whole answers of it, asked again where that may help
scored.py     given text, scored by it token by token
opened.py     which runtime a name and a spec mean
"""
