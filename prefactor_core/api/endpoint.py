"""The API as messages speak of it: where it is, and what to check when it does not answer as it should."""

from dataclasses import dataclass

from prefactor_core.api.replies import TOKEN_STATUSES, Reply
from prefactor_core.config import DEFAULT_API_URL


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One API, in words for those who chose it.

    Attributes:
        url: Its base URL, fit to be shown.
        url_setting: What chooses it.
        token_setting: What chooses the token.
    """

    url: str = DEFAULT_API_URL
    url_setting: str = "api_url (PREFACTOR_API_URL)"
    token_setting: str = "api_token (PREFACTOR_API_TOKEN)"  # noqa: S105 -- a setting's name

    def advice(self, reply: Reply) -> str:
        """Return what to check after a reply, or none, that is no success; the end of a line of a log."""
        status = reply.status
        if status is None:
            return f"check scheme, host and port in {self.url_setting}, and the network"
        if reply.code is not None:
            if status in TOKEN_STATUSES:
                return (
                    f"check {self.token_setting}, and that {self.url_setting} is the API of its account, "
                    "or create a new token"
                )
            if status >= 500 or status == 429:
                return "the API itself says so, and is asked until it is well"
            return f"check {self.url_setting}"
        if 300 <= status < 400:
            return f"it redirects: in {self.url_setting} give the URL where that ends, maybe with https://"
        if status >= 500 or status == 429:
            return f"a proxy answers for it, or something else is there: check {self.url_setting} if it lasts"
        return f"this does not look like the Prefactor API: check {self.url_setting}"
