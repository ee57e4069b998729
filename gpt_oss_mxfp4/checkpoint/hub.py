"""resolve_model: a local folder as it is, or a Hub repository's root files and no sub-folder's."""

import re
from pathlib import Path

from gpt_oss_mxfp4.checkpoint.checkpoint import index_names
from gpt_oss_mxfp4.checkpoint.errors import CheckpointError, Fault, quoted
from gpt_oss_mxfp4.checkpoint.layout import CONFIG_FILE, INDEX_FILE, PUBLISHED, check_layout
from gpt_oss_mxfp4.config import GptOssConfig

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

SUB_FOLDERS = ("*/*",)
"""Never downloaded. Needed because a ``*`` of huggingface_hub matches ``/`` too: ``*.safetensors``
alone would take original/ as well."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


def resolve_model(path_or_hub_id: str | Path, revision: str | None = None) -> Path:
    """Finds a model's folder, downloading it where it is a Hub id.

    A download takes the small files first and checks them, so that a repository that cannot be
    loaded (another model, BF16 experts) is refused before its weights travel.

    Args:
        path_or_hub_id: A folder, or else a repository such as ``openai/gpt-oss-20b``.
        revision: Branch, tag or commit of the repository; the default branch unless given.

    Returns:
        The folder, not yet checked by ``open_checkpoint``.

    Raises:
        CheckpointError: If there is no such folder or repository, it cannot be reached, or its
            config or index shows that it cannot be loaded.
    """
    text = str(path_or_hub_id)
    path = Path(path_or_hub_id).expanduser()
    if path.exists():
        if not path.is_dir():
            cure = f"Give the folder that holds it, {path.parent}"
            _refuse(text, "must be a folder, is a file", cure)
        if revision is not None:
            rule = f"must be a Hub id to have a revision, is a folder (revision {quoted(revision)})"
            _refuse(text, rule, "Leave the revision out, or give a Hub id")
        return path
    if isinstance(path_or_hub_id, Path) or not _HUB_ID.fullmatch(text):
        rule = "must be an existing folder or a Hub id of the form owner/name, is neither"
        _refuse(quoted(text), rule, f"Check the path, or give a repository such as {PUBLISHED}")

    folder = _download(text, revision, SMALL_FILES)
    GptOssConfig.from_file(folder / CONFIG_FILE)
    check_layout(index_names(folder), folder)
    return _download(text, revision, SMALL_FILES + WEIGHT_FILES)


def _download(hub_id: str, revision: str | None, patterns: tuple[str, ...]) -> Path:
    # Imported here: it costs a second, and a local folder needs none of it.
    from httpx import HTTPError
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                hub_id,
                revision=revision,
                allow_patterns=list(patterns),
                ignore_patterns=list(SUB_FOLDERS),
            )
        )
    except (HTTPError, OSError, ValueError) as error:  # every error of huggingface_hub is one
        cause = " ".join(str(error).split())
        cure = (
            "Check the id, the revision and the network; a private or gated repository needs"
            " `hf auth login`. Where there is no network, give a local folder"
        )
        fault = Fault("download failed", f"cannot be downloaded ({quoted(cause)})", cure)
        raise CheckpointError(hub_id, [fault]) from error


def _refuse(where: str, text: str, cure: str) -> None:
    raise CheckpointError(where, [Fault("no model", text, cure)])
