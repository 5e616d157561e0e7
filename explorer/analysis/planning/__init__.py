"""What a run needs before it starts, and what a model would do on a device not at hand.

device_fit.py  which devices hold a model, and what they cost per hour
roofline.py    how fast a model could be on a device, from published peaks
run_memory.py  memory and disk of a run, and why it is refused
run_time.py    seconds of planned runs, from earlier runs
"""
