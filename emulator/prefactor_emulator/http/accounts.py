"""Who may use the API, and on whose behalf."""

import hashlib
import re
from collections.abc import Iterable

from prefactor_emulator.model import Identity, Refusal

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class AccountError(ValueError):
    """The accounts are described wrongly; the message is one line and tells no token."""


class Accounts:
    """The accounts and deployments that tokens belong to.

    Args:
        tokens: Tokens that are accepted, each with an account of its own.
        named: Accounts as `NAME=TOKEN`. Several tokens may name one account.
        deployments: Deployments as `NAME=TOKEN`, all of the first account that is named, or else of one
            called `default`. NAME is the name of the deployment's agent, too.

    Without any token at all, every token is accepted, with an account of its own.

    Raises:
        AccountError: An account or a deployment is not described so, or two of them have one token.
    """

    def __init__(
        self, tokens: Iterable[str] = (), named: Iterable[str] = (), deployments: Iterable[str] = ()
    ) -> None:
        self._identities: dict[str, Identity] = {}
        for token in tokens:
            self._add(token, Identity(_digest(token)))
        pairs = [_pair("an account", text) for text in named]
        for name, token in pairs:
            self._add(token, Identity(name))
        account = pairs[0][0] if pairs else "default"
        for text in deployments:
            name, token = _pair("a deployment", text)
            self._add(token, Identity(account, name))

    def identify(self, token: str | None) -> Identity:
        """Tell whose token this is; the name of the account does not tell the token.

        Raises:
            Refusal: There is none, or it is not accepted.
        """
        if not token:
            raise _unauthorized("send the header Authorization: Bearer TOKEN")
        digest = _digest(token)
        if not self._identities:
            return Identity(digest)
        identity = self._identities.get(digest)
        if identity is None:
            raise _unauthorized("the token is not accepted here")
        return identity

    def _add(self, token: str, identity: Identity) -> None:
        known = self._identities.setdefault(_digest(token), identity)
        if known != identity:
            name = identity.deployment or identity.account
            raise AccountError(f"a token of {name!r} is given to another account or deployment too")


def _pair(what: str, text: str) -> tuple[str, str]:
    name, _, token = text.partition("=")
    if not _NAME.fullmatch(name) or not token:
        raise AccountError(
            f"{what} is NAME=TOKEN, with a NAME of letters, digits, dots, dashes and underscores"
        )
    return name, token


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _unauthorized(message: str) -> Refusal:
    return Refusal(401, "unauthorized", message, headers={"WWW-Authenticate": "Bearer"})
