"""The CPU or accelerator that a run computes on, asked for what it can do and never by name.

accelerator.py   which accelerators torch finds, which one a spec means, and what each can do
memory.py        memory of a device: its size, what is free, and the allocator's peak
failures.py      what an error of a device means: lost, or taken
nvml.py          an NVIDIA GPU's energy, utilisation, clocks and processes
torch_build.py   whether the installed torch fits the driver, and the command for another
backend.py       questions to the module that torch keeps for a kind of device
"""
