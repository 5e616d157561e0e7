"""How fast a model answers, and what memory and energy it takes.

latency.py  TTFT, TPOT and batches on this machine, student and teacher in turns
load.py     an endpoint under load: alone, many clients, random arrivals
memory.py   the highest memory of a model, by a child process (memory_child.py)
energy.py   joules a token, where a device tells
nvml.py     what NVIDIA's driver tells
quiet.py    whether the machine was otherwise idle
"""
