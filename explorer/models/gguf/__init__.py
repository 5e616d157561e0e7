"""GGUF files, the format of llama.cpp.

convert.py     a torch model as a GGUF file
header.py      the sizes in a file's header, without a model library
gguf_facts.py  what a record keeps of a file: sizes, number format, fingerprint
"""
