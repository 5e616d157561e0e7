"""Pure functions from frames to frames and numbers; they read no files and no clock.

baseline.py      what a model is compared with: the teacher in the same format, or as it is
frontier.py      the runs that no other run beats on both axes, and how certain that is
headline.py      the finding of a study in one to three sentences
interference.py  runs that were timed on a busy machine, which no conclusion uses
load_table.py    the levels of a load test as a table
numbers.py       how numbers are written: significant digits, units, intervals
overlays.py      published students and estimates as points beside measured ones
ranking.py       models in the order of what they keep, and which can't be told apart
request_time.py  where the time of a request goes: prefill and decode
studies.py       the runs that belong together, and the newest of them
task_retention.py  what each model keeps on each task, and which tasks do not count
cost/            what a model costs per hour, per token and per month of traffic
pick/            which model to use under limits, and how sure that is
planning/        memory and time of runs before they start; speed on other devices
published/       published students and the claims made about them
stats/           retention, intervals and paired tests
tables/          runs, tasks and differences as tables for people
"""
