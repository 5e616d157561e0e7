"""One SQLite file, made from the records, that answers what page and shell ask of a store.

by_task.py         what each run keeps on each task
database.py        the file: where it lies, its tables, rebuilt when damaged
keeping.py         which runs surely keep enough of their teacher
kept_retention.py  keys and forms in which retention and its draws are kept
packed_answers.py  answers as bits, and back again for the statistics
records_index.py   runs, scores and states, read again where a file changed
run_states.py      what a run's status and record say of its state
store_index.py     the index of one store, and what is computed from answers
"""

from explorer.index.store_index import Snapshot, StoreIndex, index_of

__all__ = ["Snapshot", "StoreIndex", "index_of"]
