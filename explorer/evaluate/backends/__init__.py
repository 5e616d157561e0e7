"""What answers lm-eval's requests: a model in torch, in llama.cpp or behind an API.

backend.py           what an evaluation needs to know of each of them
prefix_lm.py         models in torch, as token trees that share prefixes
prefix_trie.py       which tokens to compute
tree_model.py        a model that reads token trees
tree_cache.py        its keys and values
tree_generate.py     greedy generation for many prompts
llama_lm.py          GGUF files in llama.cpp
api_lm.py            endpoints, through lm-eval's own API models
api_cost.py          the tokens that an API counts
request_progress.py  progress of one lm-eval call
"""
