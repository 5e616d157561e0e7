"""Models on the Hugging Face hub or a mirror: downloaded once, resumable, pinned to a commit.

A hub id is `org/name`, or `org/name@REVISION` with a branch, a tag or a commit. `huggingface_hub`
downloads, with the user's HF_TOKEN, HF_ENDPOINT, HF_HOME and proxies. Only weights as safetensors
are fetched. Its own download of a file over HTTP starts again in a new process, so files of weights
are continued here.

    python -c "from explorer.models import hub; print(hub.fetch('org/name', weights=False))"
"""

import errno
import json
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
from filelock import FileLock
from huggingface_hub import (
    constants,
    errors,
    get_hf_file_metadata,
    get_token,
    hf_hub_url,
    snapshot_download,
    try_to_load_from_cache,
)
from huggingface_hub.file_download import http_get, repo_folder_name
from huggingface_hub.utils import (  # type: ignore[attr-defined] # listed in another way
    build_hf_headers,
    disable_progress_bars,
)

from explorer.errors import ExplorerError, NoRoom, RunFailed, UnknownModel
from explorer.store import inside

log = logging.getLogger("explorer")

SMALL_FILES = [
    "*.json",
    "*.model",
    "*.txt",
    "*.jinja",
    "*.tiktoken",
    "*.py",
    "LICENSE*",
    "README.md",
]
"""Configuration, tokenizer, chat template, the model's own code, and its card with the licence."""
OTHER_FOLDERS = ["onnx/*", "original/*", "openvino/*", "*.onnx.json"]
"""The same model for other software."""
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
PARTIAL = ".explorer-partial"
"""Ends the name of a file whose download is not finished."""
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
UNWRITABLE = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
SPARE_BYTES = 100e6
"""Room that a download leaves on the disk."""


def split(name: str) -> tuple[str, str | None]:
    """A hub id without its revision, and the revision; None is the main branch."""
    repository, _, revision = name.partition("@")
    return repository, revision or None


def cached_folder(name: str) -> Path | None:
    """The folder of a model that was downloaded before; None if its configuration is not here."""
    repository, revision = split(name)
    try:
        config = try_to_load_from_cache(repository, "config.json", revision=revision)
    except errors.HFValidationError:
        return None
    return Path(config).parent if isinstance(config, str) else None


def commit_of(folder: Path) -> str | None:
    """The commit of a downloaded folder; None for any other folder."""
    return folder.name if folder.parent.name == "snapshots" else None


def fetch(name: str, *, weights: bool) -> Path:
    """The folder with a hub model's files, downloaded where they are missing.

    Args:
        name: A hub id, with or without a revision.
        weights: Whether the weights are needed too.

    Raises:
        UnknownModel: The hub has no such model or revision, or not for this user, or no
            safetensors.
        NoRoom: The disk is full or the cache cannot be written.
        RunFailed: The hub cannot be reached, or the download broke off.
    """
    repository, revision = split(name)
    disable_progress_bars()
    try:
        folder = _download(repository, revision, SMALL_FILES)
        if not (folder / "config.json").is_file():
            raise UnknownModel(
                f"{name} has no config.json on {_host()}, so it is not a model for transformers. "
                "For a GGUF file, download it and write gguf:FILE; for an adapter, merge it into "
                "its model first."
            )
        if not weights:
            return folder
        names = _weight_files(folder)
        if not all((folder / file).exists() for file in names):
            _refuse_full_disk(name, repository, folder.name, names)
            for file in names:
                _continue_download(repository, folder.name, file)
            folder = _download(repository, folder.name, names)
    except ExplorerError:
        raise
    # A hub, a mirror, a proxy and a disk can make the client raise anything.
    except Exception as error:
        raise _in_words(name, error) from error
    if not any((folder / file).exists() for file in names):
        raise UnknownModel(
            f"{name} has no {WEIGHTS} on {_host()}, and reading other weights can run code. Choose "
            "a revision with safetensors, or convert the model into a folder and name that."
        )
    return folder


def _download(repository: str, revision: str | None, patterns: list[str]) -> Path:
    folder = snapshot_download(
        repository, revision=revision, allow_patterns=patterns, ignore_patterns=OTHER_FOLDERS
    )
    return Path(folder)


def _weight_files(folder: Path) -> list[str]:
    """The names of a model's weight files, as its index states them."""
    index = folder / INDEX
    if not index.is_file():
        return [WEIGHTS]
    files = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
    names = sorted({str(file) for file in files})
    if not all(inside.is_plain_name(name) for name in names):
        raise UnknownModel(
            f"{INDEX} of {folder} names something that is not a file beside it, so nothing is "
            "downloaded. Choose another model."
        )
    return names


def _continue_download(repository: str, commit: str, file: str) -> None:
    """Put a file where huggingface_hub keeps it, from where an earlier download stopped.

    Files that come through Xet, and all files when the hub is out of reach, are left to
    huggingface_hub.
    """
    if constants.is_offline_mode():
        return
    url = hf_hub_url(repository, file, revision=commit)
    try:
        known = get_hf_file_metadata(url)
    except errors.EntryNotFoundError:
        return
    if known.xet_file_data is not None or not known.etag or not known.size:
        return
    if not inside.is_plain_name(known.etag):
        return  # it becomes a file's name
    blob = _blobs(repository) / known.etag
    partial = blob.with_name(blob.name + PARTIAL)
    blob.parent.mkdir(parents=True, exist_ok=True)
    headers = build_hf_headers()
    if urlsplit(known.location).netloc != urlsplit(url).netloc:
        headers.pop("authorization", None)  # a content network must not see the token
    with FileLock(f"{partial}.lock"):
        if blob.exists():
            return
        partial.touch()
        with partial.open("r+b") as out:
            http_get(
                known.location,
                out,
                resume_size=out.seek(0, os.SEEK_END),
                headers=headers,
                expected_size=known.size,
            )
        partial.replace(blob)


def _blobs(repository: str) -> Path:
    folder = repo_folder_name(repo_id=repository, repo_type="model")
    return Path(constants.HF_HUB_CACHE) / folder / "blobs"


def _refuse_full_disk(name: str, repository: str, commit: str, files: list[str]) -> None:
    """Say before a long download that it will not fit.

    Raises:
        NoRoom: The message says how much is missing where.
    """
    try:
        plan = snapshot_download(repository, revision=commit, allow_patterns=files, dry_run=True)
    except errors.DryRunError:
        return  # offline: the download itself says so
    num_bytes = sum(file.file_size or 0 for file in plan if file.will_download)
    cache = Path(constants.HF_HUB_CACHE)
    num_bytes -= sum(file.stat().st_size for file in _blobs(repository).glob(f"*{PARTIAL}"))
    free = shutil.disk_usage(_existing(cache)).free
    if num_bytes + SPARE_BYTES > free:
        raise NoRoom(
            f"The weights of {name} need {num_bytes / 1e9:,.1f} GB more in {cache}, where "
            f"{free / 1e9:,.1f} GB are free. Free some, or set HF_HOME to a folder on another disk."
        )
    if num_bytes > 0:
        log.info("Downloading %s from %s: %.1f GB.", name, _host(), num_bytes / 1e9)


def _existing(folder: Path) -> Path:
    return folder if folder.exists() else _existing(folder.parent)


def _host() -> str:
    """The hub or mirror in use."""
    return constants.ENDPOINT.partition("://")[2].rstrip("/") or constants.ENDPOINT


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _in_words(name: str, error: Exception) -> ExplorerError:
    """One sentence for whatever a download raised."""
    causes = list(_causes(error))
    codes = {cause.errno for cause in causes if isinstance(cause, OSError) and cause.errno}
    cache = constants.HF_HUB_CACHE
    if codes & FULL:
        return NoRoom(
            f"The disk of {cache} is full, so the download of {name} stopped. Free some room, or "
            "set HF_HOME to a folder on another disk; run again to continue."
        )
    if codes & UNWRITABLE:
        return NoRoom(
            f"{cache} cannot be written, and {name} is downloaded into it. Set HF_HOME to a folder "
            "that you can write."
        )
    if any(isinstance(cause, errors.OfflineModeIsEnabled) for cause in causes):
        return UnknownModel(
            f"{name} is not on this machine, or not whole, and HF_HUB_OFFLINE=1 forbids "
            "downloads. Unset it, or name a folder."
        )
    for cause in causes:
        if isinstance(cause, errors.HfHubHTTPError):
            return _refusal(name, cause)
    if isinstance(error, errors.HFValidationError):
        return UnknownModel(f"{name!r} is not a hub id: {_first_line(error)} Write org/name.")
    if any(isinstance(cause, httpx2.HTTPError | OSError) for cause in causes) and not any(
        isinstance(cause, errors.FileMetadataError) for cause in causes
    ):
        proxies = [key for key in os.environ if key.lower() in ("http_proxy", "https_proxy")]
        through = f", the proxy in {proxies[0]}" if proxies else ""
        return RunFailed(
            f"{_host()} could not be reached, or broke off, while {name} was downloaded: "
            f"{_first_line(causes[-1])}. "
            f"Check the connection{through} and HF_ENDPOINT, then run again: the download "
            "continues where it stopped."
        )
    return RunFailed(
        f"{_host()} does not answer as a model hub ({type(error).__name__}: {_first_line(error)}). "
        "Correct HF_ENDPOINT, or unset it."
    )


def _refusal(name: str, error: errors.HfHubHTTPError) -> ExplorerError:
    """One sentence for an error status of the hub."""
    repository, revision = split(name)
    status = error.response.status_code
    said = error.response.headers.get("X-Error-Message") or ""
    page = f"{constants.ENDPOINT.rstrip('/')}/{repository}"
    has_token = get_token() is not None
    if isinstance(error, errors.GatedRepoError):
        account = "with the account of HF_TOKEN" if has_token else "and set HF_TOKEN"
        return UnknownModel(f"{repository} is gated. Accept its terms at {page} {account}.")
    if isinstance(error, errors.DisabledRepoError):
        return UnknownModel(f"{repository} was disabled on {_host()}. Choose another model.")
    if isinstance(error, errors.RevisionNotFoundError):
        return UnknownModel(
            f"{repository} has no revision {revision or 'main'} on {_host()}. Write a branch, tag "
            f"or commit that {page} has after the @."
        )
    if has_token and (status in (401, 403) and ("credential" in said or "token" in said.lower())):
        return UnknownModel(
            f"{_host()} does not accept the token in HF_TOKEN: {said} Create one at "
            f"{constants.ENDPOINT.rstrip('/')}/settings/tokens."
        )
    if isinstance(error, errors.RepositoryNotFoundError) or status in (401, 403):
        access = "the account of HF_TOKEN may see" if has_token else "is public"
        private = "" if has_token else " For a private model, set HF_TOKEN."
        return UnknownModel(f"{_host()} has no model {repository} that {access}.{private}")
    if isinstance(error, errors.EntryNotFoundError):
        return UnknownModel(f"{repository} lacks a file on {_host()}: {_first_line(error)}")
    reason = f"HTTP {status}{f', {said}' if said else ''}"
    wait = " Wait a moment, or set HF_TOKEN for a higher limit." if status == 429 else ""
    return RunFailed(
        f"{_host()} refused the download of {name}: {reason}.{wait} Run again later: the download "
        "continues where it stopped."
    )


def _first_line(error: Any) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(".")
