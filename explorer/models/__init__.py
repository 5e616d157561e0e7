"""Models: names, loading, sizes, architectures, quantisation and GGUF files.

loading.py        load a model by its name
hub.py            models on the Hugging Face hub or a mirror, downloaded and pinned
own_code.py       Python code that a model brings, and whether it may run
endpoint.py       names and API keys of models behind an endpoint
starter.py        the starter teacher, downloaded once
sizes.py          a model's sizes from its files, without a model library
size_limits.py    refuses impossible student sizes from them
facts.py          what a record keeps of a loaded model; its fingerprint
families.py       the axes of each family's weights, along which widths are cut
decoding.py       one token after another, whatever a model keeps between two steps
output_head.py    from the last hidden states to the logits: projection, scale and cap
layers.py         the list of a model's layers, and the map of what a student keeps
check.py          what can be known of a model before its weights are read
weight_files.py   the tensors in a folder's files, from their headers
weight_checks.py  missing, unexpected, misshapen and non-finite weights are errors
quantize.py       linear weights in 8 and 4 bits, by torchao
gguf/             GGUF files for llama.cpp
"""
