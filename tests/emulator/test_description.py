"""The OpenAPI description is complete and true: whatever is asked, the answer is as described."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from jsonschema_rs import Draft202012Validator
from schemathesis.checks import CHECKS, load_all_checks

from prefactor_emulator.app import Emulator
from prefactor_emulator.ids import new_id
from prefactor_emulator.model import JsonObject
from prefactor_emulator.storage.database import Database
from tests.emulator.driver import (
    CREATE,
    FINISH,
    FINISH_SPAN,
    NOW,
    OVER,
    QUALITY,
    REGISTER,
    START,
    Api,
    Served,
    bulk_item,
    new_key,
    registration,
    span,
    without,
)
from tests.support.emulator import mistakes_of

TOKEN = "the-described"
with closing(Database(":memory:")) as nowhere:
    OPENAPI: Any = Emulator(nowhere).api.openapi()
description = schemathesis.openapi.from_dict(OPENAPI)
load_all_checks()
# What is valid by its form may still be refused: an id may be taken.
BUT_FOR: list[Any] = [CHECKS.get_one("positive_data_acceptance")]
# A bulk item that is not acceptable is answered under its key, in a reply that is a success; query parameters
# that are not known are dropped.
FORGIVING = {"/api/v1/bulk", "/api/v1/agent", "/api/v1/agent_instance", "/api/v1/agent_spans"}
BUT_FOR_FORGIVING = [*BUT_FOR, CHECKS.get_one("negative_data_rejection")]


@pytest.fixture(scope="module")
def described() -> Iterator[Served]:
    served = Served("--token", TOKEN)
    yield served
    assert mistakes_of(served.end()) == []


@pytest.fixture
def api(described: Served) -> Iterator[Api]:
    with described.api(TOKEN) as client:
        yield client


class Known:
    """Things that exist, so that generated requests get past 'not found'."""

    def __init__(self, api: Api) -> None:
        self.instances = [api.instance() for _ in range(3)]
        self.instances.append(api.write(REGISTER, None, registration()).json()["details"]["id"])
        api.terminate(self.instances[1])
        self.agents = [
            api.post("agent", json={"details": {"name": "A"}}).json()["details"]["id"] for _ in "ab"
        ]
        self.spans = [api.span(each) for each in self.instances[:3] * 3]


@pytest.fixture(scope="module")
def known(described: Served) -> Known:
    with described.api(TOKEN) as api:
        return Known(api)


@description.given(data=st.data())
@description.parametrize()
@settings(
    max_examples=120,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_is_as_described(
    case: schemathesis.Case[Any], described: Served, known: Known, data: Any
) -> None:
    _meet(case, known, data)
    case.call_and_validate(
        base_url=described.url,
        headers={"Authorization": f"Bearer {TOKEN}"},
        excluded_checks=BUT_FOR_FORGIVING if case.path in FORGIVING else BUT_FOR,
    )


def _meet(case: schemathesis.Case[Any], known: Known, data: Any) -> None:
    """Let well-formed requests be, as often as not, new ones about something that exists."""
    if case.meta is not None and not case.meta.generation.mode.is_positive:
        return
    if "id" in case.path_parameters and data.draw(st.booleans()):
        ids = known.spans if "agent_spans" in case.path else known.instances
        ids = known.agents if "/agent/" in case.path else ids
        case.path_parameters["id"] = data.draw(st.sampled_from(ids))
    if not isinstance(case.body, dict):
        return
    if "idempotency_key" in case.body and data.draw(st.booleans()):
        case.body["idempotency_key"] = new_key()
    details = case.body.get("details")
    if isinstance(details, dict) and "agent_instance_id" in details:
        details["agent_instance_id"] = data.draw(st.sampled_from(known.instances))
        details["schema_name"] = data.draw(st.sampled_from(["plain", "typed", details["schema_name"]]))
    if isinstance(case.body.get("items"), list):
        case.body["items"] += data.draw(st.lists(_items(known), max_size=4))


def _items(known: Known) -> st.SearchStrategy[JsonObject]:
    """Make bulk items that are acceptable by their form."""
    targets = {CREATE: st.none(), REGISTER: st.none(), FINISH_SPAN: st.sampled_from(known.spans)}
    fields = {
        REGISTER: registration(),
        START: {"timestamp": NOW},
        FINISH: OVER,
        QUALITY: {"name": "q", "payload": {}},
        CREATE: span(known.instances[0]),
        FINISH_SPAN: OVER,
    }
    return st.sampled_from(list(fields)).flatmap(
        lambda operation_type: st.builds(
            bulk_item,
            st.just(operation_type),
            targets.get(operation_type, st.sampled_from(known.instances)),
            st.just(fields[operation_type]),
            st.builds(new_key),
        )
    )


def test_the_description_is_served_to_everybody(described: Served) -> None:
    response = httpx.get(f"{described.url}/openapi.json")
    assert response.headers["content-type"] == "application/json"
    assert response.json() == OPENAPI


def test_what_the_api_has_is_described_and_what_is_the_emulators_own_is_not() -> None:
    instance, agent = "agent_instance/{id}", "agent/{id}"
    assert set(OPENAPI["paths"]) == {
        f"/api/v1/{path}"
        for path in (
            *("ping", "bulk", "pfid/generate", "agent_spans", "agent_spans/{id}/finish"),
            *("agent_instance", "agent_instance/register", instance, f"{instance}/start"),
            *(f"{instance}/finish", f"{instance}/terminate", f"{instance}/record_quality"),
            *("agent", "agent/show", agent, f"{agent}/retire", f"{agent}/reinstate"),
        )
    }


def validator(name: str) -> Draft202012Validator:
    return Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": OPENAPI["components"]})


def test_bulk_items_and_their_outputs_are_as_described(api: Api) -> None:
    instance_id, span_id = new_id(), new_id()
    items = [
        bulk_item(REGISTER, None, registration(id=instance_id, purpose="eval"), new_key()),
        bulk_item(START, instance_id, {"timestamp": NOW}, new_key()),
        bulk_item(CREATE, None, span(instance_id, id=span_id), new_key()),
        bulk_item(FINISH_SPAN, span_id, {"details": {}}, new_key()),
        bulk_item(QUALITY, instance_id, {"name": "q", "payload": None}, new_key()),
        bulk_item(FINISH, instance_id, OVER, new_key()),
        bulk_item(FINISH_SPAN, span_id, OVER, new_key()),
    ]
    validator("BulkRequest").validate({"items": items})
    outputs = api.bulk(*items)
    validator("BulkReply").validate({"status": "success", "outputs": outputs})
    assert [output["status"] for output in outputs.values()] == ["success"] * 6 + ["error"]


def test_what_is_wrong_is_not_as_described() -> None:
    wrong: dict[str, object] = {
        "RegisterInstance": without(registration(), "agent_version"),
        "CreateSpan": span(new_id(), status="cancelled"),
        "FinishSpan": {"idempotency_key": "k" * 65},
        "BulkRequest": {"items": [bulk_item(FINISH_SPAN, None, OVER, "k" * 8)]},
        "Control": {"terminate": False, "reason": "none"},
    }
    assert [name for name, body in wrong.items() if validator(name).is_valid(body)] == []
