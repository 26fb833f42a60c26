"""Who may write, and on whose account."""

import hashlib
import re
from collections.abc import Iterable

from prefactor_emulator.model import Refusal

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class AccountError(ValueError):
    """The accounts are described wrongly; the message is one line and tells no token."""


class Accounts:
    """The accounts that tokens belong to.

    Args:
        tokens: Tokens that are accepted, each with an account of its own.
        named: Accounts as `NAME=TOKEN`. Several tokens may name one account. Without any token at all,
            every token is accepted, with an account of its own.

    Raises:
        AccountError: An account is not described so, or one token is given twice.
    """

    def __init__(self, tokens: Iterable[str] = (), named: Iterable[str] = ()) -> None:
        self._accounts: dict[str, str] = {}
        for token in tokens:
            self._add(token, _digest(token))
        for text in named:
            name, _, token = text.partition("=")
            if not _NAME.fullmatch(name) or not token:
                raise AccountError(
                    "an account is NAME=TOKEN, with a NAME of letters, digits, dots, dashes and underscores"
                )
            self._add(token, name)

    def identify(self, authorization: str | None) -> str:
        """Turn an Authorization header into the name of an account, which does not tell the token.

        Raises:
            Refusal: There is no bearer token, or it is not accepted.
        """
        scheme, _, token = (authorization or "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise _unauthorized("send the header Authorization: Bearer TOKEN")
        digest = _digest(token)
        if not self._accounts:
            return digest
        account = self._accounts.get(digest)
        if account is None:
            raise _unauthorized("the token is not accepted here")
        return account

    def _add(self, token: str, account: str) -> None:
        if self._accounts.setdefault(_digest(token), account) != account:
            raise AccountError(f"a token of {account!r} is given to another account too")


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()[:16]


def _unauthorized(message: str) -> Refusal:
    return Refusal(401, "unauthorized", message, headers={"WWW-Authenticate": "Bearer"})
