"""Stand-ins for characters that a terminal cannot show.

A terminal in latin-1 or ASCII has no dash, times sign or accent; Python would end the command with
a UnicodeEncodeError in the middle of a table.
"""

import codecs
import io
import sys
import unicodedata

STAND_INS = {
    "–": "-",
    "—": "-",
    "−": "-",
    "×": "x",
    "…": ".",
    "·": ".",
    "≤": "<",
    "≥": ">",
    "→": ">",
    "±": "~",
    "’": "'",
    "‘": "'",
    "“": '"',
    "”": '"',
    "\u00a0": " ",
    "\u202f": " ",
}
"""One character each, so that the columns of a table stay aligned."""
NAME = "explorer.stand-ins"


def use() -> None:
    """Let standard output and standard error write stand-ins where their encoding has no letter."""
    codecs.register_error(NAME, stand_in)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=NAME)


def stand_in(error: UnicodeError) -> tuple[str, int]:
    """The codec's answer to a text that cannot be encoded: a stand-in per character."""
    assert isinstance(error, UnicodeEncodeError), "it is registered for output only"
    encoding = error.encoding
    text = error.object[error.start : error.end]
    return "".join(_shown(letter, encoding) for letter in text), error.end


def _shown(letter: str, encoding: str) -> str:
    base = unicodedata.normalize("NFKD", letter)[0]
    for candidate in (STAND_INS.get(letter, base), base):
        try:
            candidate.encode(encoding)
            return candidate
        except UnicodeEncodeError:
            continue
    return "?"
