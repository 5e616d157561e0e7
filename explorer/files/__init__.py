"""Files: written so that they stay whole, and read as people bring them.

durable_files.py  files that a kill or a full disk leaves whole, and checksums
text_files.py     text files and JSON Lines that people bring: encodings, lines
yaml_files.py     YAML files that people write, read strictly
"""
