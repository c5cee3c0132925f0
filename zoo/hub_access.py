"""Checks of names on the hub before the work that needs them: where results are published, and pretrained models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo import names
from zoo.errors import OptionError, ZooError

TIMEOUT_S = 5.0  # for the hub's answer to whom a token belongs, or whether a model exists
_FORBIDDEN = (401, 403)


def check_target(target: str, option: str = "target", *, family: str | None = None) -> None:
    """Check that a model can be published under a name: its spelling and, for the hub, the account.

    Args:
        target: "local:family/name" or "hub:org/name".
        option: what to call it in the message.
        family: of the model; None accepts any.

    Raises:
        OptionError: it cannot.
    """
    expected = f"expected local:{family or 'family'}/name or hub:org/name"
    try:
        source, path, revision = names.parse(target, lambda: [target])
    except ZooError as error:
        raise OptionError(f"{option}: {error}") from None
    if source not in ("local", "hub"):
        raise OptionError(f"{option} {target}: {expected}")
    if revision:
        raise OptionError(f"{option} {target}: {expected} without a revision, which the content defines")
    if source == "hub":
        check_hub_repository(path, option)
    elif family not in (None, path.partition("/")[0]):
        raise OptionError(
            f"{option} {target}: the model is of the family {family}, expected local:{family}/{path.partition('/')[2]}"
        )


def check_hub_repository(path: str, option: str = "target") -> None:
    """Check that this account can publish to the hub: the repository's name, the token, and the hub's answer to it.

    Args:
        path: "org/name".
        option: what to call it in the message.

    Raises:
        OptionError: it cannot, or the hub does not answer within `TIMEOUT_S`.
    """
    try:
        from huggingface_hub import constants, get_token
        from huggingface_hub.errors import HFValidationError
        from huggingface_hub.utils import validate_repo_id
    except ImportError:
        raise OptionError(
            f'{option} hub:{path}: the hub needs huggingface_hub: pip install "menagerie4d[zoo]"'
        ) from None
    try:
        validate_repo_id(path)
    except HFValidationError as error:
        raise OptionError(f"{option} hub:{path}: {' '.join(str(error).split())}") from None
    if constants.HF_HUB_OFFLINE:
        raise OptionError(f"{option} hub:{path}: the hub's client is in offline mode: unset HF_HUB_OFFLINE")
    if not (token := get_token()):
        raise OptionError(
            f"{option} hub:{path}: no account: log in with `hf auth login`, or set HF_TOKEN to one with write access"
        )
    status, account = _account(token)
    endpoint = constants.ENDPOINT
    if status is None:
        raise OptionError(
            f"{option} hub:{path}: the hub {endpoint} does not answer: check the connection, or publish to local: now "
            f"and to the hub later with `python -m zoo publish` or `python -m factory.publish`"
        )
    role = account.get("auth", {}).get("accessToken", {}).get("role")
    if status in _FORBIDDEN or role == "read":
        reason = "may only read" if role == "read" else "is not valid"
        raise OptionError(
            f"{option} hub:{path}: the token of this account {reason}: log in with `hf auth login`, or set HF_TOKEN to "
            f"a token of {endpoint} with write access"
        )


def check_pretrained(name: str, option: str) -> None:
    """Check that a model that transformers loads exists, as a folder, in the hub's cache or on the hub.

    Args:
        name: folder, or name on the hub.
        option: what to call it in the message.

    Raises:
        OptionError: it does not, or the hub does not answer within `TIMEOUT_S`.
    """
    if Path(name).is_dir():
        if not (Path(name) / "config.json").is_file():
            raise OptionError(f"{option} {name}: the folder has no config.json, so it is not a model")
        return
    try:
        import huggingface_hub
        from huggingface_hub import constants
        from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError
    except ImportError:
        raise OptionError(
            f'{option} {name}: no such folder, and the hub needs huggingface_hub: pip install "menagerie4d[zoo]"'
        ) from None
    try:
        if isinstance(huggingface_hub.try_to_load_from_cache(name, "config.json"), str):
            return
        if not constants.HF_HUB_OFFLINE:
            huggingface_hub.HfApi().model_info(name, timeout=TIMEOUT_S)
            return
    except HFValidationError:
        raise OptionError(f"{option} {name!r}: neither a folder nor the name of a model on the hub") from None
    except RepositoryNotFoundError:
        raise OptionError(
            f"{option} {name}: neither a folder nor a model that the hub {constants.ENDPOINT} shows this account: "
            f"check the name, or log in with `hf auth login`"
        ) from None
    except Exception as error:  # raised by the client or its HTTP library
        raise OptionError(
            f"{option} {name}: neither a folder nor in the hub's cache, and the hub {constants.ENDPOINT} does not "
            f"answer ({type(error).__name__}): download the model first, or give its folder"
        ) from None
    raise OptionError(
        f"{option} {name}: neither a folder nor in the hub's cache, and the hub's client is in offline mode: download "
        f"the model first, give its folder, or unset HF_HUB_OFFLINE"
    )


def _account(token: str) -> tuple[int | None, Mapping[str, Any]]:
    """The HTTP status and content of the hub's answer to whom a token belongs; None if it does not answer."""
    from huggingface_hub import constants, get_session
    from huggingface_hub.utils import build_hf_headers

    url = f"{constants.ENDPOINT}/api/whoami-v2"
    try:
        response = get_session().get(url, headers=build_hf_headers(token=token), timeout=TIMEOUT_S)
        content = response.json() if response.status_code == 200 else {}
    except Exception:  # of the HTTP library, or an answer that is not JSON
        return None, {}
    return response.status_code, content if isinstance(content, dict) else {}
