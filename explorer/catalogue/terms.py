"""What licences and API terms say of training on a model's output, and a model's licence.

The list is dated, and it quotes the clause. It is no legal advice: it says where to read.

    terms.training_terms("meta-llama/Meta-Llama-3-8B").in_words()
"""

import dataclasses
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from explorer.catalogue import load
from explorer.errors import ExplorerError
from explorer.models import endpoint, hub
from explorer.models.gguf import gguf_files
from explorer.records.rows import row_dicts
from explorer.store import disk

STARTER = "starter"
STARTER_LICENCE = "apache-2.0"
"""Of SmolLM2-135M-Instruct."""
RUN, GGUF = "run:", ("gguf:", "llamacpp:")
CARD = "README.md"
MAX_CARD_CHARACTERS = 200_000


@dataclasses.dataclass(frozen=True)
class TrainingTerms:
    """A clause about models that are trained on another model's weights or output."""

    publisher: str
    effect: str
    """`forbids` such training, or allows it under a `condition`."""
    clause: str
    text: str
    """The clause's words."""
    source_url: str
    source_title: str
    date_seen: str

    def in_words(self, name: str) -> str:
        """The warning about a teacher of this name."""
        verdict = (
            f"may not be used to train another model under the {self.source_title}"
            if self.effect == "forbids"
            else f"may train another model under a condition of the {self.source_title}"
        )
        return (
            f"{name} {verdict}, {self.clause}: “{self.text}” ({self.source_url}, seen "
            f"{self.date_seen}). Read the clause before you train, or choose another teacher."
        )


def training_terms(name: str, licence: str | None = None) -> TrainingTerms | None:
    """What is known of training on a model's output; None if nothing is.

    Args:
        name: The teacher as a spec names it: a hub id, a file, a folder, or endpoint:URL#MODEL.
        licence: Its licence, as `licence_of` finds it; it counts before the name.
    """
    rows = row_dicts(load.load_table("terms"))
    matching = []
    if name.startswith(endpoint.PREFIX):
        url, _, model = name.removeprefix(endpoint.PREFIX).partition("#")
        host = urlsplit(url if "//" in url else f"//{url}").hostname or ""
        matching = [row for row in rows if row["host"] and _is_under(host, row["host"])]
        matching = matching or [row for row in rows if _names(row, model)]
    elif licence is not None:
        stated = licence.replace(" ", "-")
        matching = [row for row in rows if row["licence"] and _names(row, stated)]
    else:
        # Names of API models, such as gpt-4, are also those of files that are something else.
        matching = [row for row in rows if row["licence"] and _names(row, _own_name(name))]
    if not matching:
        return None
    fields = [field.name for field in dataclasses.fields(TrainingTerms)]
    return TrainingTerms(**{field: str(matching[0][field]) for field in fields})


def licence_of(name: str, root: Path | None = None) -> str | None:
    """A model's licence, as its files on this machine or the catalogue state it; None if unknown.

    Args:
        name: As a spec names it.
        root: The store, for run:RUN_ID.
    """
    if name == STARTER:
        return STARTER_LICENCE
    if name.startswith(endpoint.PREFIX):
        return None
    if name.startswith(RUN):
        return _licence_of_run(name.removeprefix(RUN), root)
    if name.startswith(GGUF):
        return _licence_of_gguf(Path(name.partition(":")[2]).expanduser())
    folder = Path(name).expanduser()
    if not folder.is_dir():
        cached = hub.cached_folder(name)
        if cached is None:
            return _published(name)
        folder = cached
    return _licence_of_card(folder / CARD) or _published(name)


def _own_name(name: str) -> str:
    """What names the model: of a folder or file its own name, up to where a family would begin.

    A folder may lie anywhere, and `my_llama2_test` is no Llama 2, so only its beginning counts.
    """
    path = Path(name.partition(":")[2] if name.startswith(GGUF) else name).expanduser()
    if not (name.startswith(GGUF) or path.is_absolute() or path.exists()):
        return name
    return re.split(r"[_\s]", path.name)[0]


def _names(row: dict[str, Any], name: str) -> bool:
    return re.search(row["model_pattern"], name, re.IGNORECASE) is not None


def _is_under(host: str, known: str) -> bool:
    return host == known or host.endswith(f".{known}")


def _licence_of_run(run_id: str, root: Path | None) -> str | None:
    try:
        return disk.load(root, run_id).teacher_licence if root else None
    except ExplorerError:
        return None


def _licence_of_gguf(path: Path) -> str | None:
    try:
        stated = gguf_files.read_files(path).headers[0].values.get("general.license")
    except (ExplorerError, OSError):
        return None
    text = stated.decode("utf-8", "replace") if isinstance(stated, bytes) else stated
    return text if isinstance(text, str) and text else None


def _licence_of_card(path: Path) -> str | None:
    """The licence in the front matter of a model card: `license`, or what it calls its own."""
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")[:MAX_CARD_CHARACTERS]
    except OSError:
        return None
    match = re.match(r"---\s*\n(.*?)\n---", text, re.DOTALL)
    try:
        front = yaml.safe_load(match[1]) if match else None
    except (yaml.YAMLError, ValueError, RecursionError):
        return None
    if not isinstance(front, dict):
        return None
    stated = front.get("license")
    if stated == "other":
        stated = front.get("license_name") or stated
    return stated if isinstance(stated, str) and stated else None


def _published(name: str) -> str | None:
    """The licence that the catalogue's table of models states for a hub id."""
    models = load.load_table("models")
    rows = models.loc[models["hf_id"] == name.partition("@")[0], "licence"].dropna()
    return str(rows.iloc[0]) if len(rows) else None
