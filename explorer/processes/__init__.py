"""Processes that the product starts beside its own.

arrived_signals.py  the signals that a process was sent, whichever thread got them
child_process.py    processes that end with the one that started them, and free ports
cli_subprocess.py   a command of ours in a process of its own
limited_process.py  uploads read in a process of its own, with limits
"""
