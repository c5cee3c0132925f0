"""Which requests the server answers.

On a loopback address without a token, it answers requests that name a loopback address in their Host header and that
no other site caused, so a page of another site can neither read answers (DNS rebinding) nor start work. On any other
address, a token is required: in the URL on first use, afterwards in a cookie.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from http.cookies import CookieError, SimpleCookie

from zoo.errors import OptionError

LOOPBACK = "127.0.0.1"
SHORTEST_TOKEN = 8  # characters
_TOKEN = re.compile(r"[A-Za-z0-9._~-]+")  # needs no escaping in URLs and cookies


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect to an address."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def make_token(host: str, token: str | None) -> str | None:
    """The token to require: the given one, or for an address that others can reach a random one.

    Raises:
        OptionError: the given one is too short or has other characters than letters, digits and "._~-".
    """
    if token is None:
        return None if is_loopback(host) else secrets.token_urlsafe(24)
    if len(token) < SHORTEST_TOKEN or not _TOKEN.fullmatch(token):
        raise OptionError(
            f"--token: expected at least {SHORTEST_TOKEN} letters, digits and any of ._~-, got {len(token)} characters"
        )
    return token


@dataclass(frozen=True)
class Access:
    """The rules of one server.

    Attributes:
        port: that it listens on.
        token: that it requires, or None.
    """

    port: int
    token: str | None

    @property
    def cookie(self) -> str:
        """Name of the cookie. Cookies are shared by all ports of a host, so it has the port in it."""
        return f"menagerie_{self.port}"

    def refusal(self, path: str, headers: Mapping[str, str] | Message[str, str]) -> str | None:
        """Why a request is refused, one sentence; None if it is answered.

        Args:
            path: of the URL.
            headers: of the request.
        """
        follows_link = (
            path == "/" and headers.get("Sec-Fetch-Dest") == "document"
        )  # such as one in a notebook
        if headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin") and not follows_link:
            return "requests of other sites are not answered"
        if self.token is not None:
            try:
                cookie = SimpleCookie(headers.get("Cookie", "")).get(self.cookie)
            except CookieError:
                cookie = None
            if cookie is None or not self.is_token(cookie.value):
                return "open the address that the viewer printed: it has a token in it"
            return None
        name = headers.get("Host", "").rsplit(":", 1)[0].strip("[]")
        return None if is_loopback(name) else "open the address that the viewer printed"

    def is_token(self, text: str) -> bool:
        """Whether a text is the token, in constant time."""
        return self.token is not None and hmac.compare_digest(text.encode(), self.token.encode())
