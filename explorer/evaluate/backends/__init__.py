"""The models that answer lm-eval's requests: in torch, in llama.cpp, behind an API.

prefix_lm.py         a model in torch that computes shared prefixes once
prefix_trie.py       the texts of many requests as trees
tree_model.py        reads packed trees under one mask
tree_cache.py        cache layers for a shared prefix, or preallocated for an answer
tree_generate.py     greedy decoding of many prompts at once
llama_lm.py          GGUF files in llama.cpp
api_lm.py            endpoints, by lm-eval's own API models
api_cost.py          tokens that an endpoint will charge for, and did
request_progress.py  progress of one call of lm-eval
"""
