"""resolve_model: a local folder as it is, or a Hub repository's root files and no sub-folder's."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gpt_oss_mxfp4.checkpoint.bounds import check_count
from gpt_oss_mxfp4.checkpoint.checkpoint import weight_files
from gpt_oss_mxfp4.checkpoint.download import Downloads
from gpt_oss_mxfp4.checkpoint.errors import CheckpointError, Fault, quoted
from gpt_oss_mxfp4.checkpoint.layout import (
    CONFIG_FILE,
    INDEX_FILE,
    PUBLISHED,
    check_layout,
    is_weight_file,
)
from gpt_oss_mxfp4.checkpoint.own_files import check_own_files
from gpt_oss_mxfp4.checkpoint.repository import DOWNLOAD_FAILED, Repository, hub_errors
from gpt_oss_mxfp4.checkpoint.weight_map import index_files
from gpt_oss_mxfp4.config import GptOssConfig
from gpt_oss_mxfp4.progress import Progress

SMALL_FILES = (
    CONFIG_FILE,
    INDEX_FILE,
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)
"""What is needed beside the weights."""

WEIGHT_FILES = ("*.safetensors",)
"""Patterns of huggingface_hub, whose ``*`` matches ``/`` and ``.`` too. Less ``NOT_READ`` they are what
``is_weight_file`` says."""

NOT_READ = ("*/*", ".*")
"""Patterns of what is never downloaded: sub-folders and hidden files."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


def resolve_model(
    path_or_hub_id: str | Path, revision: str | None = None, progress: Progress | None = None
) -> Path:
    """Finds a model's folder, downloading it where it is a Hub id.

    Args:
        path_or_hub_id: A folder, or else a repository such as ``openai/gpt-oss-20b``.
        revision: Branch, tag or commit of the repository; the default branch unless given. A folder
            has none, and is taken as it is: MAX names one for either.
        progress: Shows how far a download is; huggingface_hub does by its own means unless given.

    Returns:
        The folder, not yet checked by ``open_checkpoint``.

    Raises:
        CheckpointError: If there is no such folder or repository, it cannot be reached, or its
            config or index shows that it cannot be loaded.
    """
    folder = local_folder(path_or_hub_id)
    if folder is None:
        with taken_for_hub_id():
            return download(str(path_or_hub_id), revision, progress=progress)
    return folder


def local_folder(path_or_hub_id: str | Path) -> Path | None:
    """Tells a folder from a Hub id.

    Args:
        path_or_hub_id: A folder, or else a repository such as ``openai/gpt-oss-20b``.

    Returns:
        The folder, or None for a Hub id.

    Raises:
        CheckpointError: If it is neither.
    """
    text = str(path_or_hub_id)
    if not text:
        _refuse('""', "must be a folder or a Hub id, is empty", "Check the path")
    path = named_folder(text)
    if os.path.exists(path):  # which a name too long or with a null byte does not
        if not path.is_dir():
            cure = f"Give the folder that holds it, {os.path.abspath(path.parent)}"
            _refuse(text, "must be a folder, is a file", cure)
        return path
    if isinstance(path_or_hub_id, Path) or not _HUB_ID.fullmatch(text):
        rule = "must be an existing folder or a Hub id of the form owner/name, is neither"
        _refuse(quoted(text), rule, f"Check the path, or give a repository such as {PUBLISHED}")
    return None


def named_folder(path: str | Path) -> Path:
    """A path as messages can name it: with the home folder in full, and no ``.`` or ``..`` alone."""
    expanded = os.path.expanduser(path)  # Path's own raises where there is no such user
    return Path(expanded if expanded.strip("./") else os.path.abspath(expanded))


@contextmanager
def taken_for_hub_id() -> Iterator[None]:
    """Has a failure tell that what was given could have been meant as a folder."""
    try:
        yield
    except CheckpointError as error:
        if {fault.kind for fault in error.faults} != {DOWNLOAD_FAILED}:
            raise
        rule = "is no folder here, so it is taken for a Hub id, and"
        faults = [Fault(f.kind, f"{rule} {f.text}", f.cure) for f in error.faults]
        raise CheckpointError(error.where, faults) from error


def download(
    hub_id: str,
    revision: str | None = None,
    output: Path | None = None,
    progress: Progress | None = None,
) -> Path:
    """Downloads what this package reads of a repository, going on where an earlier attempt stopped.

    The small files come first and are checked, so that a repository that cannot be loaded (another
    model, BF16 experts) is refused before its weights travel.

    Args:
        hub_id: Owner and name.
        revision: Branch, tag or commit; the default branch unless given.
        output: A folder to fill, or None for huggingface_hub's cache.
        progress: Shows how far it is.

    Returns:
        The folder.

    Raises:
        CheckpointError: If it cannot be reached or downloaded, or cannot be loaded.
    """
    if progress is not None:
        from huggingface_hub.utils import disable_progress_bars, logging

        disable_progress_bars()
        logging.set_verbosity_error()
    repository = None
    if output is not None:
        repository = _repository_for(hub_id, revision, output)
        # Not its branch, which may move on before the last file is there. The cache keeps the branch's name, as that
        # is what it is asked for where there is no network.
        revision = repository.commit
    folder = _download(hub_id, revision, SMALL_FILES, output)
    GptOssConfig.from_file(folder / CONFIG_FILE)
    names = index_files(folder)
    check_layout(names, folder)
    if output is not None or not _are_there(folder, set(names.values())):
        with hub_errors(hub_id):
            repository = repository or Repository(hub_id, revision)
            weights = [file for file in repository.files.values() if file.is_weights]
            check_count(hub_id, len(weights))
            downloads = Downloads(repository, weights, output)
            if progress is None or not downloads.nbytes:
                downloads.fetch(lambda nbytes: None)
            else:
                text = f"downloading {hub_id}"
                with progress.bar(text, downloads.nbytes, downloads.done_bytes) as advance:
                    downloads.fetch(advance)
    return _download(hub_id, revision, SMALL_FILES + WEIGHT_FILES, output)


def _repository_for(hub_id: str, revision: str | None, output: Path) -> Repository:
    """Refuses a folder of another repository, or with files that are not this one's and would be replaced."""
    with hub_errors(hub_id):
        names = [name for name in os.listdir(output) if _is_read(name)]
        repository = Repository(hub_id, revision)
        check_own_files(repository, output, names)
    return repository


def _is_read(name: str) -> bool:
    """Whether a file of a repository's root is downloaded."""
    return name in SMALL_FILES or is_weight_file(name)


def _are_there(folder: Path, names: set[str]) -> bool:
    """Whether the cache has all weights, so that the Hub need not be asked for their list."""
    if names:
        return all((folder / name).is_file() for name in names)
    return bool(weight_files(folder))


def _download(
    hub_id: str, revision: str | None, patterns: tuple[str, ...], output: Path | None = None
) -> Path:
    # Imported here: it costs a second, and a local folder needs none of it.
    from huggingface_hub import snapshot_download

    with hub_errors(hub_id):
        return Path(
            snapshot_download(
                hub_id,
                revision=revision,
                local_dir=output,
                allow_patterns=list(patterns),
                ignore_patterns=list(NOT_READ),
            )
        )


def _refuse(where: str, text: str, cure: str) -> None:
    raise CheckpointError(where, [Fault("no model", text, cure)])
