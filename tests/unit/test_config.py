"""The configuration: what is refused, by name, and that the token stays where it is."""

import logging
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from prefactor_core import HttpClientConfig, PrefactorCoreConfig, QueueConfig, SchemaRegistry
from prefactor_core.config import ENVIRONMENT
from prefactor_core.variables import OF_WORKERS

TOKEN = "S3CRET-token"


@dataclass(frozen=True)
class Foreign:
    """The shape of the published HTTP client's configuration, as a class of somebody else's."""

    api_url: str = "https://example.test/"
    api_token: str = TOKEN
    request_timeout: float = 5.0
    connect_timeout: float = 2.0
    max_retries: int = 7
    initial_retry_delay: float = 0.5
    max_retry_delay: float = 11.0
    retry_multiplier: float = 3.0
    retry_on_status_codes: tuple[int, ...] = (418,)
    default_idempotency_key: str | None = None
    something_else: object = None


def http(**given: Any) -> HttpClientConfig:
    return HttpClientConfig(**given)


def core(**given: Any) -> PrefactorCoreConfig:
    return PrefactorCoreConfig(**given)


def test_defaults() -> None:
    assert http(api_token=TOKEN).model_dump() == {
        "api_url": "https://app.prefactorai.com",
        "api_token": TOKEN,
        "request_timeout": 30,
        "connect_timeout": 10,
        "max_retries": 3,
        "initial_retry_delay": 1,
        "max_retry_delay": 60,
        "retry_multiplier": 2,
        "retry_on_status_codes": (429, 500, 502, 503, 504),
        "default_idempotency_key": None,
    }
    assert QueueConfig().model_dump() == {"num_workers": 3, "max_retries": 3, "retry_delay_base": 1.0}
    config = PrefactorCoreConfig()
    assert (config.http_config, config.schema_registry, config.transport_url) == (None, None, "memory://")
    assert config.queue_config == QueueConfig()


BAD: list[tuple[type[BaseModel], str, list[Any]]] = [
    (
        HttpClientConfig,
        "api_url",
        [
            *("", "example.test", "ftp://x", "https://", "http:///x", "http://[", "javascript:alert(1)"),
            *("http://127.0.0.1:99999", 7, None),
            *("https://x/api/v1", "https://x/api/v1/", "https://x/base/api/v1", "https://x/api/v1/ping"),
        ],
    ),
    (HttpClientConfig, "api_token", ["", " x", "x ", "x\n", "x\r\nHost: y", "tökén", "a\x00b", None, 7]),
    *(
        (HttpClientConfig, name, [0, -1, math.nan, "soon", None])
        for name in ("request_timeout", "connect_timeout", "initial_retry_delay", "max_retry_delay")
    ),
    (HttpClientConfig, "retry_multiplier", [0.99, 0, -2, math.nan]),
    (HttpClientConfig, "max_retries", [-1, 1.5, "many"]),
    (HttpClientConfig, "retry_on_status_codes", [503, ["x"], None]),
    (HttpClientConfig, "api_tokn", ["x"]),
    (QueueConfig, "num_workers", [0, 21, -1, 1.5, "x", None]),
    (QueueConfig, "max_retries", [-1, None]),
    (QueueConfig, "retry_delay_base", [0, -1, math.nan, None]),
    (PrefactorCoreConfig, "http_config", ["https://x", object(), 7, SimpleNamespace(api_url="https://x")]),
    (PrefactorCoreConfig, "schema_registry", [{}, "x", object()]),
    (PrefactorCoreConfig, "buffer_operations", [0, -1]),
    (PrefactorCoreConfig, "buffer_bytes", [0, -1]),
    (PrefactorCoreConfig, "close_timeout", [-0.1, math.nan]),
    (PrefactorCoreConfig, "transport_url", [None, 7]),
    (PrefactorCoreConfig, "http_conf", [None]),
]


def test_bad_values_are_refused_by_the_name_of_their_field(subtests: pytest.Subtests) -> None:
    for model, name, values in BAD:
        given = {"api_token": TOKEN} if model is HttpClientConfig else {}
        for value in values:
            with subtests.test(f"{model.__name__}.{name} = {value!r}"):
                with pytest.raises(ValidationError) as refused:
                    model(**{**given, name: value})
                assert [error["loc"][0] for error in refused.value.errors()] == [name]
                assert name in str(refused.value)


def test_values_at_the_bounds_are_taken() -> None:
    for model, given in (
        (QueueConfig, {"num_workers": 1, "max_retries": 0, "retry_delay_base": 0.001}),
        (QueueConfig, {"num_workers": 20}),
        (HttpClientConfig, {"api_token": "x", "max_retries": 0, "retry_multiplier": 1}),
        (HttpClientConfig, {"api_token": "x", "api_url": "http://localhost:8000"}),
        (PrefactorCoreConfig, {"close_timeout": 0, "buffer_operations": 1, "buffer_bytes": 1}),
    ):
        assert model.model_validate(given).model_dump(include=set(given)) == given


def test_the_http_configuration_is_frozen_and_drops_a_slash_at_the_end_of_its_url() -> None:
    config = HttpClientConfig(api_token="x", api_url="https://x/base/")
    assert config.api_url == "https://x/base"
    with pytest.raises(ValidationError, match="frozen"):
        config.api_token = "y"


def test_a_url_with_the_path_of_the_api_is_refused_with_the_one_to_write() -> None:
    for url, instead in (
        ("https://app.prefactorai.com/api/v1", "https://app.prefactorai.com"),
        ("http://127.0.0.1:8700/api/v1/", "http://127.0.0.1:8700"),
        (f"https://me:{TOKEN}@x/base/api/v1/bulk?token={TOKEN}", "https://x/base"),
    ):
        with pytest.raises(ValidationError) as refused:
            http(api_token="x", api_url=url)
        (error,) = refused.value.errors()
        told = f"prefactor adds /api/v1 by itself: leave it out, and write {instead}"
        assert error["msg"] == f"Value error, {told}"
        assert TOKEN not in str(refused.value)
    for url in ("https://x/api/v10", "https://x/api", "https://api.v1/api-v1"):
        assert http(api_token="x", api_url=url).api_url == url


def test_the_token_is_in_no_repr_and_no_log(caplog: pytest.LogCaptureFixture) -> None:
    ours = HttpClientConfig(api_token=TOKEN)
    config = core(http_config=ours)
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("prefactor_core").warning("%s %r %s", config, ours, [config])
    for text in (repr(ours), str(ours), repr(config), str(config), caplog.text, repr(list(config))):
        assert "HttpClientConfig" in text or "api_url" in text
        assert TOKEN not in text


def test_the_token_is_in_no_error_message(subtests: pytest.Subtests) -> None:
    refusals: list[Callable[[], object]] = [
        lambda: http(api_token=f"{TOKEN}\n"),
        lambda: http(api_token=f" {TOKEN}"),
        lambda: http(api_token=[TOKEN]),
        lambda: http(api_tokn=TOKEN),
        lambda: http(api_token="x", api_url=f"ftp://user:{TOKEN}@host"),
        lambda: http(api_token="x", api_url=f"https://user:{TOKEN}@"),
        lambda: http(token=TOKEN, api_token=""),
        lambda: HttpClientConfig.model_validate(TOKEN),
        lambda: core(http_config={"token": TOKEN}),
        lambda: core(http_config={"api_token": TOKEN, "api_url": "x"}),
        lambda: core(http_config=Foreign(api_url="x")),
        lambda: core(http_config=Foreign(api_token=f"{TOKEN}\n")),
        lambda: core(http_config=TOKEN),
        lambda: core(http_config=SimpleNamespace(token=TOKEN)),
        lambda: core(api_token=TOKEN),
    ]
    for number, make in enumerate(refusals):
        with subtests.test("refusal", number=number):
            with pytest.raises(ValidationError) as refused:
                make()
            assert TOKEN not in str(refused.value) + repr(refused.value)


# -- names of variables


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in [name for name in os.environ if name.startswith("PREFACTOR_")]:
        monkeypatch.delenv(name)
    return monkeypatch


def test_a_name_that_sets_nothing_is_told_with_the_nearest_that_does(
    environment: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    file = tmp_path / "env"
    file.write_text(
        f"PREFACTOR_TOKEN={TOKEN}\nprefactor_bufer_bytes=7\nOTHER_TOKEN=1\nPREFACTOR_API_TOKEN=x\n"
    )
    environment.setenv("PREFACTOR_API_TOKN", TOKEN)
    environment.setenv("PREFACTOR_COLOUR", TOKEN)
    environment.setenv("PREFACTOR_TRANSPORT", TOKEN)
    PrefactorCoreConfig.from_env(file)
    assert caplog.messages == [
        "prefactor: PREFACTOR_API_TOKN is not a setting (did you mean PREFACTOR_API_TOKEN?)",
        "prefactor: PREFACTOR_BUFER_BYTES is not a setting (did you mean PREFACTOR_BUFFER_BYTES?)",
        "prefactor: PREFACTOR_COLOUR is not a setting",
        "prefactor: PREFACTOR_TOKEN is not a setting (did you mean PREFACTOR_API_TOKEN?)",
        "prefactor: PREFACTOR_TRANSPORT is not a setting (did you mean PREFACTOR_TRANSPORT_URL?)",
    ]


def test_nothing_is_said_of_names_that_are_somebodys(
    environment: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    names = {name for names in ENVIRONMENT.values() for name in names} | OF_WORKERS
    for name in {name.upper() for name in names} - {"API_TOKEN"}:
        environment.setenv(f"PREFACTOR_{name}", "")  # which is as good as unset
    environment.setenv("PREFACTOR_TEST_ANYTHING", "1")
    for name in ("SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT", "PORT_9465_TCP_ADDR"):
        environment.setenv(f"PREFACTOR_METRICS_OF_{name}", "1")
    PrefactorCoreConfig.from_env(None)
    assert caplog.messages == []


class AsClass:
    """Attributes that are neither a dataclass's nor a model's."""

    api_url = "https://example.test"
    api_token = TOKEN


@pytest.mark.parametrize(
    "foreign",
    [Foreign(), AsClass(), AsClass, SimpleNamespace(api_token=TOKEN, api_url="https://example.test")],
)
def test_any_object_with_the_attributes_is_taken(foreign: object) -> None:
    config = core(http_config=foreign)
    assert isinstance(config.http_config, HttpClientConfig)
    assert config.http_config.api_token == TOKEN
    assert config.http_config.api_url == "https://example.test"
    if isinstance(foreign, Foreign):
        taken = config.http_config.model_dump()
        assert taken == {
            **{name: getattr(foreign, name) for name in taken},
            "api_url": "https://example.test",
        }


def test_ours_is_taken_as_it_is_a_dictionary_too_and_a_bad_value_of_a_foreign_object_is_named() -> None:
    ours = HttpClientConfig(api_token=TOKEN)
    assert core(http_config=ours).http_config is ours
    assert core(http_config={"api_token": TOKEN}).http_config == ours
    with pytest.raises(ValidationError, match="request_timeout"):
        core(http_config=Foreign(request_timeout=-1))


def test_the_registry_can_be_assigned_later_and_is_never_copied() -> None:
    config = PrefactorCoreConfig()
    registry = SchemaRegistry()
    config.schema_registry = registry
    registry.register("late", {})
    assert config.schema_registry is registry
    assert PrefactorCoreConfig(schema_registry=registry).schema_registry is registry
    config.schema_registry = None
    with pytest.raises(ValidationError, match="schema_registry"):
        config.schema_registry = {}
    with pytest.raises(ValidationError, match="close_timeout"):
        config.close_timeout = -1
    assert (config.schema_registry, config.close_timeout) == (None, 30.0)
