"""A page of another site gets nothing from the emulator and changes nothing in it."""

import pytest

from tests.emulator.driver import REGISTER, Api, Served, registration
from tests.support.emulator import mistakes_of

FAULTS = {"faults": ["error"]}


def attempts(api: Api, headers: dict[str, str]) -> list[int]:
    """Try what a page could, and return the statuses."""
    return [
        api.get(f"{api.root}/", headers=headers).status_code,
        api.get(f"{api.root}/emulator/instances", headers=headers).status_code,
        api.post(f"{api.root}/emulator/faults", json=FAULTS, headers=headers).status_code,
        api.delete(f"{api.root}/emulator/faults", headers=headers).status_code,
        api.post("agent_instance/register", json=registration(), headers=headers).status_code,
    ]


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://["},
        {"Origin": "http://127.0.0.1:1"},
        {"Host": "evil.example"},
        {"Host": "evil.example:8700", "Origin": "http://evil.example:8700"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": "evil.example@localhost"},
        {"Host": ""},
    ],
)
def test_elsewhere_is_refused(api: Api, headers: dict[str, str]) -> None:
    before = api.look("stats")["effects"], api.look("faults")
    assert attempts(api, headers) == [403] * 5
    assert (api.look("stats")["effects"], api.look("faults")) == before


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:8700",
        "emulator:8700",
        "[::1]:8700",
        "10.1.2.3",
        "a.localhost",
        "host.docker.internal",
    ],
)
def test_the_emulators_own_names_are_answered(api: Api, host: str) -> None:
    for headers in ({"Host": host}, {"Host": host, "Origin": f"http://{host}"}):
        assert api.get(f"{api.root}/emulator/stats", headers=headers).is_success


def test_a_name_that_is_allowed_is_answered() -> None:
    served = Served("--allow-host", "emulator.internal.example")
    with served.api() as api:
        headers = {"Host": "emulator.internal.example"}
        assert api.get("ping", headers=headers).is_success
        assert api.get("ping", headers={"Host": "other.internal.example"}).status_code == 403
        assert api.write(REGISTER, None, registration()).is_success
    assert mistakes_of(served.end()) == []
