"""What every request to the Hub shares: an end to the waiting, one-line errors, and downloads."""

import re
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar
from urllib.parse import urlsplit

from featherweight.errors import FeatherweightError

T = TypeVar("T")

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
# Seconds until a Hub without an answer counts as unreachable. Ten are promised, and who waits has
# waited for the libraries before.
ANSWER_S = 4.0
METADATA_S = 30.0  # seconds for the ten or so small requests before a download
OFFLINE = "HF_HUB_OFFLINE is set"
_CHUNK_BYTES = 1 << 20
_URL = re.compile(r"\w+://\S+")  # may be signed, or hold a password


class Unreachable(Exception):
    """The Hub cannot be asked; the message says what stands in the way."""


@dataclass(frozen=True)
class Repository:
    """A repository of the Hub that somebody asked for, and what its error messages say.

    Attributes:
        id: Such as "dair-ai/emotion".
        noun: "data set" or "model".
        elsewhere: What else the same word could have meant, such as "file or folder here"; empty:
            nothing, for it is a name of ours that stands for this repository.
        instead: What to do where the Hub cannot give it.
        error: The kind of its errors.
    """

    id: str
    noun: str
    elsewhere: str
    instead: str
    error: type[FeatherweightError]

    def ask(self, question: Callable[[], T]) -> T:
        """Asks the Hub a first, short question.

        Raises:
            Unreachable: There is no answer within `ANSWER_S`, or none that helps.
            FeatherweightError: There is no such repository or commit, or it asks for a login.
        """
        from huggingface_hub import constants
        from huggingface_hub.errors import HFValidationError, RevisionNotFoundError
        from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

        try:
            validate_repo_id(self.id)
        except HFValidationError:
            raise self._missing() from None
        if constants.HF_HUB_OFFLINE:
            raise Unreachable(OFFLINE)
        host = urlsplit(constants.ENDPOINT).hostname  # without the password that a URL may hold
        try:
            return within(ANSWER_S, question)
        except FutureTimeoutError:
            raise Unreachable(f"{host} does not answer within {ANSWER_S:g} s") from None
        except RevisionNotFoundError:
            raise self.error(
                f"the Hub has {self.id}, but no longer the commit that was tried: {self.instead}"
            ) from None
        except Exception as error:  # every transport has its own kinds, a proxy answers anything
            code = status(error)
            if code == 404:
                raise self._missing() from None
            if code in (401, 403):
                raise self._refused() from None
            why = f"it answers {code}" if code else type(error).__name__
            raise Unreachable(f"{host} cannot be reached ({why})") from None

    def failed(self, error: Exception) -> FeatherweightError:
        """Returns what to raise for an error that came after the first question."""
        from huggingface_hub import get_token

        code = status(error)
        if code in (401, 403):  # the files may be gated where the page is not
            return self._refused()
        # The message of an HTTP error is left out: it is long, and quotes a URL.
        why = f"it answers {code}" if code else f"{type(error).__name__}: {error}".splitlines()[0]
        token = get_token()
        why = _URL.sub("…", why.replace(token, "***") if token else why)
        return self.error(f"{self.id} cannot be loaded from the Hub ({why}): {self.instead}")

    def not_cached(self, obstacle: Unreachable) -> FeatherweightError:
        """Returns what to raise where neither the Hub nor the cache can give it."""
        start = f"{self.id} of the Hub"
        if self.elsewhere:
            start = f"{self.id} is no {self.elsewhere}, and as a {self.noun} of the Hub it"
        return self.error(f"{start} is not in the cache, while {obstacle}: {self.instead}")

    def _missing(self) -> FeatherweightError:
        if not self.elsewhere:
            return self.error(f"the Hub no longer has the {self.noun} {self.id}: {self.instead}")
        return self.error(
            f"{self.id} is neither a {self.elsewhere} nor a {self.noun} of the Hub: "
            "check the spelling"
        )

    def _refused(self) -> FeatherweightError:
        # The Hub answers 401 for what does not exist as well as for what is private.
        return self.error(
            f"the Hub does not give {self.id} to you: check the spelling; if it is private or "
            "gated, ask for access on its page and log in with: hf auth login"
        )


def within(seconds: float, call: Callable[[], T]) -> T:
    """Calls in a thread of its own and waits for it so long.

    The libraries wait and retry for minutes, and the time limit that they take covers neither
    the look-up of a name nor the attempts at a host's other addresses.

    Raises:
        TimeoutError: Of `concurrent.futures`; the call may go on, unseen.
        Exception: What the call raises.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except Exception as error:
            future.set_exception(error)

    Thread(target=run, daemon=True).start()
    return future.result(seconds)


def status(error: BaseException | None) -> int | None:
    """Returns the HTTP status of an error or of what it was raised from."""
    while error is not None:
        code: int | None = getattr(getattr(error, "response", None), "status_code", None)
        if code is not None:
            return code
        error = error.__cause__ or error.__context__
    return None


def download(model_id: str, commit: str, file: Any) -> Path:
    """Downloads one file of a model into the cache; a large one shows progress on a terminal.

    Args:
        model_id: Its repository.
        commit: Full hash of a commit.
        file: Entry of the repository's list of files, with the files' metadata.

    Returns:
        Where it lies, in the folder of that commit.

    Raises:
        Exception: Whatever the libraries raise.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from tqdm import tqdm

    name = file.rfilename
    cached = try_to_load_from_cache(model_id, name, revision=commit)
    if isinstance(cached, str):
        return Path(cached)
    if file.lfs:
        _fetch_blob(model_id, commit, file)
    silent: Any = partial(tqdm, disable=True)  # what is left is small
    return Path(hf_hub_download(model_id, name, revision=commit, tqdm_class=silent))


def _fetch_blob(model_id: str, commit: str, file: Any) -> None:
    """Fetches a large file's content to where the library looks for it before it downloads.

    The library itself (huggingface_hub 2) starts a file that was cut off all over again.
    """
    from huggingface_hub import constants, hf_hub_url
    from huggingface_hub.file_download import http_get, repo_folder_name
    from huggingface_hub.utils import (  # type: ignore[attr-defined]
        WeakFileLock,
        build_hf_headers,
    )
    from tqdm import tqdm

    bar: Any = partial(tqdm, disable=constants.HF_HUB_DISABLE_PROGRESS_BARS or None)

    cache = Path(constants.HF_HUB_CACHE).expanduser()
    folder = repo_folder_name(repo_id=model_id, repo_type="model")
    blob = cache / folder / "blobs" / file.lfs.sha256
    part = blob.with_name(f"{blob.name}.incomplete")
    lock = cache / ".locks" / folder / f"{blob.name}.lock"
    for path in (blob, lock):
        path.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):
        if blob.exists():
            return
        with part.open("ab") as content:
            if content.tell() > file.lfs.size:
                content.truncate(0)
            http_get(
                hf_hub_url(model_id, file.rfilename, revision=commit),
                content,
                resume_size=content.tell(),
                headers=build_hf_headers(),
                expected_size=file.lfs.size,
                displayed_filename=file.rfilename,
                tqdm_class=bar,
            )
        if _digest(part) != file.lfs.sha256:
            part.unlink()
            raise OSError(f"{file.rfilename} arrived damaged")
        part.replace(blob)


def _digest(path: Path) -> str:
    digest = sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
