"""GGUF files, the format of llama.cpp.

convert.py     a torch model as a GGUF file
layouts.py     what llama.cpp computes for each architecture, and whether a model is that
vocabulary.py  a tokenizer in the file
gguf_files.py  a model in one file or several parts, each checked to be whole
rope.py        rotary scaling that transformers does not read from a file
header.py      the sizes in a file's header, without a model library
gguf_facts.py  what a record keeps of a file: sizes, number format, fingerprint
"""
