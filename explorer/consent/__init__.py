"""What this user or administrator allowed, in files outside every store.

A store, a spec, a record, a task folder, an address and a model bring data. Whether their code
runs, and which key a host gets, is decided here and nowhere else. The files lie in the folder of
the user's configuration: config.yaml, trusted.json and keys.yaml, and beside them the user's prices
of APIs (`catalogue.api_prices`), by which a limit of spending goes.

user_config.py   config.yaml: task folders to offer, and folders whose task code may run
trust.py         trusted.json: whose code may run, by the digest of each file
host_keys.py     keys.yaml: which environment variable holds the API key of which host
"""
