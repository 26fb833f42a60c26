"""Where the API's token comes from: a variable, or a file that may be mended while the worker runs."""

import logging
import os
from pathlib import Path
from typing import Final, TypeAlias

logger = logging.getLogger("prefactor_worker")

TOKEN_VARIABLE: Final = "PREFACTOR_API_TOKEN"  # noqa: S105 -- a variable's name


class TokenError(Exception):
    """There is no usable token; the message says what to do, and holds no token."""


class FixedToken:
    """A token that never changes; messages name its source.

    Raises:
        TokenError: It cannot be sent as a header.
    """

    def __init__(self, token: str, source: str) -> None:
        self._token = _checked(token, source)

    def current(self) -> str:
        """Return the token."""
        return self._token

    def reread(self) -> None:
        """Do nothing."""


class FileToken:
    """A token in a file, read again whenever the file has changed.

    A file that is gone, or holds no token, is logged once, and the last token stays in use.

    Raises:
        TokenError: It cannot be read, or holds no token.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp = _stamp(path)
        self._token = _read(path)
        self._problem: str | None = None

    def current(self) -> str:
        """Return the token of the moment. Costs one look at the file's times."""
        if _stamp(self._path) != self._stamp:
            self.reread()
        return self._token

    def reread(self) -> None:
        """Read the file, whatever its times say: a file can be mended without a change of those."""
        self._stamp = _stamp(self._path)  # first: what is written meanwhile changes it again
        try:
            token = _read(self._path)
        except TokenError as error:
            if str(error) != self._problem:
                logger.warning("%s; the last token stays in use", error)
            self._problem = str(error)
            return
        self._problem = None
        if token != self._token:
            self._token = token
            logger.info("there is a new token in %s", self._path)


TokenSource: TypeAlias = FixedToken | FileToken


def find_token(file: Path | None) -> TokenSource | None:
    """Return the token in a file, without one that of the variable; ``None`` if neither is given.

    Raises:
        TokenError: It cannot be read, or cannot be sent as a header.
    """
    if file is not None:
        return FileToken(file)
    given = os.environ.get(TOKEN_VARIABLE, "")
    return FixedToken(given, TOKEN_VARIABLE) if given else None


def _checked(token: str, source: str) -> str:
    """Return a token without the blanks around it."""
    token = token.strip()
    if not token:
        raise TokenError(f"{source} holds no token")
    if not token.isascii() or not token.isprintable():
        raise TokenError(f"{source}: a token is printable ASCII on one line")
    return token


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size, found.st_ino)


def _read(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        problem = error.strerror if isinstance(error, OSError) else "is not text"
        raise TokenError(f"the token file {path}: {problem}") from None
    return _checked(text, f"the token file {path}")
