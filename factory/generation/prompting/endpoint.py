"""A chat model behind an OpenAI-compatible HTTP server.

Only fields that every such server knows are sent, and optional ones (`seed`, `temperature`, `max_tokens`) are left out
once a server has refused them. `response_format` is never sent, since some servers refuse any request with it.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from factory.generation.prompting.chat import LARGEST_ANSWER, Answer, ChatWriter, Messages
from factory.generation.prompting.files import PromptFiles
from factory.generation.prompting.prompts import PromptError
from renderers.arguments import integer, number
from renderers.files import atomic_path
from zoo.errors import OptionError
from zoo.terminal import printable

if TYPE_CHECKING:
    import requests

URL_VARIABLE, KEY_VARIABLE, MODEL_VARIABLE = "OPENAI_BASE_URL", "OPENAI_API_KEY", "OPENAI_MODEL"
_OPTIONAL = ("seed", "temperature", "max_tokens")
_RETRIED = (408, 409, 425, 429, 500, 502, 503, 504, 529)
_DENIED = {
    401: "the key is not accepted",
    403: "the key may not use this model",
    404: "no such address or model",
}
_LARGEST_BODY = 4 * LARGEST_ANSWER  # bytes of a response that are read
_CONNECT_S = 10.0
_AUTO = "auto"


class ChatError(PromptError):
    """The endpoint cannot be used, or did not answer after all retries; answers so far are kept for the next run."""


class _Message(BaseModel):
    model_config = ConfigDict(extra="ignore")
    content: str | None = None


class _Choice(BaseModel):
    model_config = ConfigDict(extra="ignore")
    message: _Message
    finish_reason: str | None = None


class _Completion(BaseModel):
    """The part of a response that is used."""

    model_config = ConfigDict(extra="ignore")
    choices: list[_Choice] = Field(min_length=1)


class ChatEndpoint(ChatWriter):
    """An OpenAI-compatible server: OpenAI, vLLM, llama.cpp, Ollama, `transformers serve` and others.

    Args:
        base_url: e.g. "http://127.0.0.1:8000/v1"; None for the variable OPENAI_BASE_URL.
        model: name of a model; "auto" for OPENAI_MODEL, or the first one that the server lists.
        key: None for the variable OPENAI_API_KEY; "" sends none. It is neither stored nor shown.
        files: the prompt files; None for the packaged ones.
        folder: where answers are kept, so that an interrupted run resumes without asking again; None keeps none.
        image: uint8 [H, W, 3], the object, sent with each request; left out if the server refuses it.
        batch: sentences asked for in one request.
        temperature: of the sampling.
        timeout_s: for one whole answer.
        tries: attempts per request.
        back_off_s: wait after the first failed attempt; doubled after each, unless the server sends Retry-After.
        longest_wait_s: limit of one wait.

    Raises:
        OptionError: there is no address, or it is no http(s) URL.
    """

    def __init__(
        self,
        base_url: str | None = None,
        model: str = _AUTO,
        key: str | None = None,
        *,
        files: PromptFiles | None = None,
        folder: str | os.PathLike[str] | None = None,
        image: np.ndarray | None = None,
        batch: int = 40,
        temperature: float = 1.0,
        timeout_s: float = 120.0,
        tries: int = 6,
        back_off_s: float = 1.0,
        longest_wait_s: float = 60.0,
    ) -> None:
        super().__init__(files, batch)
        self.base_url = _checked_url(base_url or os.environ.get(URL_VARIABLE, ""))
        self._key = os.environ.get(KEY_VARIABLE, "") if key is None else key
        self._model: str = os.environ.get(MODEL_VARIABLE, _AUTO) if model == _AUTO else model
        self.folder = None if folder is None else Path(folder)
        self.temperature = number(temperature, "temperature", 0, 2)
        self.timeout_s = number(timeout_s, "timeout_s", 1e-3)
        self.tries, self.back_off_s = integer(tries, "tries", 1), number(back_off_s, "back_off_s", 0)
        self.longest_wait_s = number(longest_wait_s, "longest_wait_s", 0)
        self._image = None if image is None else _data_url(image)
        self._refused: set[str] = set()
        self._sleep: Callable[[float], None] = time.sleep

    @property
    def origin(self) -> str:  # type: ignore[override]
        return f"chat:{self.model}"

    @property
    def model(self) -> str:
        """Name of the model; asks the server once if it is "auto"."""
        if self._model == _AUTO:
            listed = self._send("GET", "/models", None, Counter())
            names = [str(each.get("id") or "") for each in _entries(listed) if isinstance(each, dict)]
            names = [name for name in names if name and name.isprintable() and len(name) < 200]
            if not names:
                raise ChatError(f"{self.base_url}: lists no model; name one with model=, or {MODEL_VARIABLE}")
            self._model = names[0]
        return self._model

    def fingerprint(self) -> dict[str, str]:
        return {
            "writer": "chat",
            "model": self.model,
            "temperature": str(self.temperature),
            "batch": str(self.batch),
            "image": hashlib.sha256((self._image or "").encode()).hexdigest(),
            "files": self.files.digest(),
        }

    def complete(self, messages: Messages, seed: int, counts: Counter[str]) -> Answer | None:
        """Return the kept answer to this request, or ask the server and keep its answer.

        Raises:
            ChatError: the server cannot be used, or every attempt failed.
        """
        body = {
            "model": self.model, "messages": messages, "seed": seed % 2**31, "temperature": self.temperature,
            "max_tokens": 80 + 40 * self.batch,
        }  # fmt: skip
        key = hashlib.sha256(json.dumps([body, self._image], sort_keys=True).encode()).hexdigest()
        if (kept := self._kept(key)) is not None:
            counts["answers_reused"] += 1
            return kept
        response = self._send_tolerantly(body, counts)
        if response is None:
            return None
        answer = _read_completion(response)
        self._keep(key, answer)
        return answer

    # Requests

    def _send_tolerantly(self, body: dict[str, Any], counts: Counter[str]) -> bytes | None:
        """Send a request, leaving out optional fields that the server refuses; None if it refuses all that is left."""
        while True:
            sent = {name: value for name, value in body.items() if name not in self._refused}
            if self._image and "image" not in self._refused:
                sent["messages"] = _with_image(body["messages"], self._image)
            try:
                return self._send("POST", "/chat/completions", sent, counts)
            except _Refused as refusal:
                candidates = [name for name in _OPTIONAL if name in sent]
                candidates += ["image"] if self._image and "image" not in self._refused else []
                named = [name for name in candidates if name in refusal.reason.lower()]
                if not candidates:
                    return None
                self._refused.update(named or candidates)
                counts["refused_fields"] += len(named or candidates)

    def _send(self, method: str, path: str, body: dict[str, Any] | None, counts: Counter[str]) -> bytes:
        """Send one request with retries; the body of its answer, cut at `_LARGEST_BODY` + 1 bytes."""
        import requests

        reason = ""
        for attempt in range(self.tries):
            if attempt:
                counts["retries"] += 1
            counts["requests"] += 1
            hold: float | None = None
            try:
                status, hold, content = self._exchange(method, path, body)
            except (requests.ConnectionError, requests.Timeout, _Late) as error:
                reason = (
                    "no answer in time"
                    if isinstance(error, _Late | requests.Timeout)
                    else "connection failed"
                )
                counts["late" if reason.startswith("no") else "disconnected"] += 1
            except requests.RequestException as error:
                raise ChatError(f"{self.base_url}: {printable(type(error).__name__)}") from None
            else:
                if status == 200:
                    return content
                said = self._without_key(printable(content[:300].decode("utf-8", "replace")))
                if status in _RETRIED:
                    reason = f"HTTP {status}"
                    counts[f"http_{status}"] += 1
                elif status in _DENIED:
                    raise ChatError(f"{self.base_url}{path}: HTTP {status}, {_DENIED[status]}: {said}")
                elif 300 <= status < 400:
                    raise ChatError(
                        f"{self.base_url}{path}: redirects (HTTP {status}), which is not followed"
                    )
                else:
                    counts[f"http_{status}"] += 1
                    raise _Refused(said, f"{self.base_url}{path}: HTTP {status}: {said}")
            if attempt + 1 < self.tries:
                wait = self.back_off_s * 2**attempt * (1 + random.random() / 4) if hold is None else hold
                self._sleep(min(wait, self.longest_wait_s))
        kept = f"; answers so far are in {self.folder} and are used by the next run" if self.folder else ""
        raise ChatError(f"{self.base_url}{path}: {reason} after {self.tries} attempts{kept}")

    def _exchange(
        self, method: str, path: str, body: dict[str, Any] | None
    ) -> tuple[int, float | None, bytes]:
        """One HTTP request: status, seconds of Retry-After or None, and the body.

        The deadline is for the whole answer: a server that sends a byte a minute would never exceed a read timeout.
        """
        import requests

        deadline = time.monotonic() + self.timeout_s
        headers = {"Accept-Encoding": "identity", "User-Agent": "menagerie4d"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        with requests.Session() as session:
            session.auth = lambda request: request  # otherwise ~/.netrc would replace the key
            response = session.request(
                method,
                self.base_url + path,
                json=body,
                headers=headers,
                timeout=(min(_CONNECT_S, self.timeout_s), self.timeout_s),
                stream=True,
                allow_redirects=False,  # would take the key to another host
            )
            with response:
                return response.status_code, _retry_after(response), _read(response, deadline)

    def _without_key(self, text: str) -> str:
        """A server's message for an error; some servers repeat the key."""
        return text.replace(self._key, "…") if self._key else text

    # Kept answers

    def _kept(self, key: str) -> Answer | None:
        if self.folder is None:
            return None
        try:
            entry = json.loads((self.folder / f"{key}.json").read_text("utf-8"))
            return Answer(str(entry["text"]), str(entry["finish"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None  # none, or damaged: ask again

    def _keep(self, key: str, answer: Answer) -> None:
        """Keep an answer. Its file is named after the request, never after anything in the answer."""
        if self.folder is not None:
            with atomic_path(self.folder / f"{key}.json") as part:
                part.write_text(json.dumps({"text": answer.text, "finish": answer.finish}), "utf-8")


class _Refused(ChatError):
    """The server does not accept this request. `reason` is its message."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class _Late(Exception):
    """The answer was not complete at its deadline."""


def _read(response: requests.Response, deadline: float) -> bytes:
    """The body of a response, at most `_LARGEST_BODY` + 1 bytes, as it arrives."""
    import urllib3

    parts, size = [], 0
    while size <= _LARGEST_BODY:
        if time.monotonic() > deadline:
            raise _Late
        try:
            part = response.raw.read1(16 << 10, decode_content=False)
        except urllib3.exceptions.TimeoutError:
            raise _Late from None
        except urllib3.exceptions.HTTPError:  # cut off
            import requests

            raise requests.ConnectionError("the answer was cut off") from None
        if not part:
            break
        parts.append(part)
        size += len(part)
    return b"".join(parts)[: _LARGEST_BODY + 1]


def _read_completion(body: bytes) -> Answer:
    """The first choice of a response. An unreadable response is an empty answer, which is then repaired or counted."""
    if len(body) > _LARGEST_BODY:
        return Answer("", "oversized")
    try:
        completion = _Completion.model_validate(json.loads(body.decode("utf-8", "replace")))
    except (ValidationError, ValueError, RecursionError):
        return Answer(body[:200].decode("utf-8", "replace"), "stop")
    choice = completion.choices[0]
    text = choice.message.content or ""
    if len(text) > LARGEST_ANSWER:
        return Answer("", "oversized")
    return Answer(text, choice.finish_reason or "stop")


def _entries(body: bytes) -> list[Any]:
    """The list `data` of a response; empty if it has none."""
    try:
        data = json.loads(body.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return []
    entries = data.get("data") if isinstance(data, dict) else None
    return entries if isinstance(entries, list) else []


def _retry_after(response: requests.Response) -> float | None:
    """Seconds that a Retry-After header demands, as a number or a date."""
    value = response.headers.get("Retry-After", "").strip()
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return None
    return max(0.0, seconds) if seconds == seconds else None


def _checked_url(url: str) -> str:
    if not url:
        raise OptionError(
            f"chat endpoint: no address: set {URL_VARIABLE}, e.g. http://127.0.0.1:8000/v1, or pass base_url="
        )
    parts = urlsplit(url)
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or parts.username
        or parts.query
        or parts.fragment
    ):
        raise OptionError(
            f"chat endpoint: expected http(s)://host[:port]/v1 without user, query or fragment, got "
            f"{printable(url[:200])}"
        )
    return url.rstrip("/")


def _data_url(image: np.ndarray) -> str:
    from PIL import Image

    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise OptionError(f"image: expected uint8 [H, W, 3], got {image.dtype} {list(image.shape)}")
    file = io.BytesIO()
    picture = Image.fromarray(image)
    picture.thumbnail((512, 512))
    picture.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _with_image(messages: Messages, image: str) -> list[dict[str, Any]]:
    """The messages, with the image in the first one of the user."""
    parts = [
        {"type": "text", "text": messages[1]["content"]},
        {"type": "image_url", "image_url": {"url": image}},
    ]
    return [messages[0], {"role": "user", "content": parts}, *messages[2:]]
