"""Who answers lm-eval's requests: a model in torch, in llama.cpp, behind an API.

prefix_lm.py     models in torch, as trees of tokens that share their beginnings
  token_tree.py    which tokens to compute
  tree_model.py    a model that reads trees
  tree_cache.py    its keys and values
  tree_generate.py greedy answers of many prompts
llama_lm.py      GGUF files in llama.cpp
api_lm.py        endpoints, by lm-eval's own API models
  api_cost.py      what asking them costs
helping.py       the other processes of a launch
answer_log.py    answers on disk, for a task that is cut off
work.py          how far a back end is
"""
