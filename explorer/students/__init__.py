"""Students: cut from their teacher, taken as they are, or initialised from scratch.

create.py         one entry point: the student that a spec asks for
depth.py          fewer layers, and how to choose them
width.py          fewer MLP channels, attention heads and hidden dimensions
size_target.py    the shape that a spec asks for, by widths or by a number of parameters
planned_sizes.py  the sizes of teacher and student before anything is loaded
fresh.py          the teacher's architecture with random weights
vocabulary.py     the vocabulary that teacher and student share
layer_config.py   a configuration with fewer layers, each of the kind that it was
layer_check.py    each kept layer computes what it computed in the teacher
layer_map.py      which of the teacher's layers and widths a student keeps, in its config
"""
