"""A real server that a run starts for its timing and stops after it: vLLM, SGLang, llama.cpp, ....

engines.py    the known servers: their programs, commands and versions
arguments.py  which arguments a spec may pass, and which the user has to allow
server.py     a server's life: a free port, health, death, its log
keeper.py     the process between a run and its server, which ends the one with the other
"""
