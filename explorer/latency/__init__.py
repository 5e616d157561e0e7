"""How fast a model answers, how much memory it takes and how much energy.

timing.py             TTFT, TPOT and batches on this machine, student and teacher in turns
load_test.py          an endpoint: one request at a time, many clients, random arrivals
peak_memory.py        a model's peak memory, measured in a child process
peak_memory_child.py  the child process
device_lock.py        one timing at a time on a device, whoever starts it
energy.py             joules per token, where the device counts energy
gpu_watch.py          limits and clocks of a GPU while it is timed
interference.py       what other processes took of the machine during a timing
runtimes/             what runs the model
servers/              real servers that a run starts and stops for its timing
"""
