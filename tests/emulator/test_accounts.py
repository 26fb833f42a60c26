"""Who is who: several accounts, each with one token or several."""

import pytest

from prefactor_emulator.http.accounts import AccountError, Accounts
from prefactor_emulator.model import Identity
from tests.emulator.driver import (
    FINISH_SPAN,
    OVER,
    QUALITY,
    REGISTER,
    EmulatorProcess,
    bulk_item,
    new_key,
    registration,
    run_emulator,
)


def test_an_account_is_a_name_and_a_token_and_one_token_is_of_one_account() -> None:
    another: list[tuple[list[str], list[str], str]] = [
        ([], ["a=secret-1", "b=secret-1"], "another account"),
        (["secret-1"], ["a=secret-1"], "another account"),
    ]
    forms = ("acme", "=secret-1", "acme=", "a b=secret-1", "-a=secret-1", "")
    for tokens, named, words in [*(([], [text], "NAME=TOKEN") for text in forms), *another]:
        with pytest.raises(AccountError, match=words) as caught:
            Accounts(tokens, named)
        assert "secret" not in str(caught.value)
    assert Accounts(named=["a=x=y=="]).identify("x=y==") == Identity("a"), "a token may contain anything"
    Accounts(named=["a=secret-1", "a=secret-1"])
    for deployments, words in (
        (["a b=secret-1"], "a deployment is NAME=TOKEN"),
        (["a=secret-1", "b=secret-1"], "another"),
    ):
        with pytest.raises(AccountError, match=words):
            Accounts(deployments=deployments)


def test_accounts_are_apart_and_a_rotated_token_stays_in_its_own() -> None:
    arguments = ("--account", "acme=old", "--account", "acme=new", "--account", "other=o", "--token", "lone")
    with EmulatorProcess(*arguments) as emulator, emulator.api("old") as api, emulator.api("new") as rotated:
        instance_id, key = api.instance(), new_key()
        first = api.create(instance_id, key)
        assert rotated.create(instance_id, key).json() == first.json()
        assert rotated.get(f"agent_instance/{instance_id}").is_success
        for token in ("other", "o", "lone", "acme"):
            with emulator.api(token) as stranger:
                known = token in {"o", "lone"}
                assert stranger.get("ping").status_code == (200 if known else 401)
                seen = stranger.get(f"agent_instance/{instance_id}")
                written = stranger.create(instance_id)
                assert {seen.status_code, written.status_code} == {404 if known else 401}
        with emulator.api("o") as other:
            assert other.write(REGISTER, None, registration()).is_success
            items = [
                bulk_item(FINISH_SPAN, first.json()["details"]["id"], OVER, new_key()),
                bulk_item(QUALITY, instance_id, {"name": "q", "payload": {}}, new_key()),
            ]
            for item in items:
                (output,) = other.bulk(item).values()
                assert output["code"] == "not_found"
        effects = api.look("effects")["effects"]
        assert [effect["account"] for effect in effects] == ["acme", "acme", "acme", "other"]
        assert emulator.end() == (0, "")


def test_a_wrong_account_is_told_without_its_token() -> None:
    done = run_emulator("--port", "0", "--account", "a b=secret-1")
    assert done.returncode == 2
    assert done.stderr.startswith("prefactor-emulator: --account, --deployment: an account is NAME=TOKEN")
    assert "secret" not in done.stderr
