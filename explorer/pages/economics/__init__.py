"""The Economics page: what it costs to serve a given traffic with each run.

economics.py      the page
parts.py          the choice of an API, notes and assumptions
other_devices.py  estimated rent of devices that are not measured here
"""
