"""`check`: what is wrong with the broker, the API or the token, in plain words."""

import asyncio
import ssl
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path

import pytest

from prefactor_core.api.replies import Reply
from prefactor_worker.operate.check_api import _judge, _unreachable
from prefactor_worker.operate.findings import Finding, Findings, Level
from tests.emulator.driver import EmulatorProcess
from tests.support.brokers.redis_server import RedisServer
from tests.support.operations import life
from tests.support.ports import free_port
from tests.worker.commands import PARTITIONS, Done, command, dead_letter, open_queue, publish, web_page

TOKEN = "the-token-of-the-test"


@pytest.fixture(scope="module")
def emulator() -> Iterator[str]:
    """The API, which takes one token only."""
    with EmulatorProcess("--token", TOKEN) as process:
        yield process.url


def _said(done: Done, about: str) -> list[tuple[str, str]]:
    """Return levels and texts of what a JSON document says about something."""
    return [(one["level"], one["text"]) for one in done.document["findings"] if one["about"] == about]


async def _check(*arguments: str, **variables: str) -> Done:
    done = await command("check", "--json", *arguments, **variables)
    assert done.errors == ""
    assert done.document["ok"] is (done.status == 0)
    assert TOKEN not in done.output
    return done


# -- healthy


async def test_all_is_well(rabbitmq_transport: str, emulator: str, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(f"{TOKEN}\n")
    async with open_queue(rabbitmq_transport) as queue:
        await dead_letter(queue, life("dead"))
        arguments = ("--transport", rabbitmq_transport, "--api-url", emulator, "--api-token-file", str(token))
        done = await command("check", *arguments)
    assert (done.status, done.errors) == (0, "")
    assert [line.split()[:2] for line in done.output.splitlines()] == [
        *[["broker", "ok"]] * 4,
        ["broker", "warning"],
        ["API", "ok"],
    ]
    for words in (
        "connected to amqp://127.0.0.1",
        "permissions are as they have to be",
        f"partitions: {PARTITIONS} are recorded",
        "workers: every partition has an owner",
        "dead letters: 5; `prefactor-worker dead-letters list` tells why",
        f"the API answers at {emulator} and takes the token",
    ):
        assert words in done.output
    assert TOKEN not in done.output
    assert "guest:guest" not in done.output


async def test_a_broker_that_nobody_has_used_yet(make_redis_server: Callable[..., RedisServer]) -> None:
    server = make_redis_server()
    done = await _check("--transport", f"{server.url}?partitions=7")
    assert done.status == 0
    assert done.document["api"] is None
    levels = [level for level, _ in _said(done, "broker")]
    assert levels == ["ok", "ok", "ok"]
    assert _said(done, "broker")[2][1] == (
        "partitions: none recorded yet; the first process that uses the broker makes 7"
    )
    assert server.command("KEYS", "*") == [], "a look makes nothing"


# -- half-configured


async def test_only_an_api_and_no_token_or_none_that_is_taken(emulator: str, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    none, missing, refused = await asyncio.gather(
        _check("--api-url", emulator),
        _check("--api-url", emulator, "--api-token-file", str(nowhere)),
        _check("--api-url", emulator, PREFACTOR_API_TOKEN="another-token"),
    )
    answers = ("ok", f"the API answers at {emulator}")
    assert none.status == 0
    assert none.document["broker"] is None
    assert _said(none, "broker") == [
        ("not given", "a broker: name one with --transport, or set PREFACTOR_TRANSPORT_URL")
    ]
    assert _said(none, "api") == [
        answers,
        ("not given", "the token: name a file with --api-token-file, or set PREFACTOR_API_TOKEN"),
    ]
    assert missing.status == 1
    problem = ("problem", f"the token file {nowhere}: No such file or directory")
    assert _said(missing, "api") == [problem, answers]
    assert refused.status == 1
    assert "another-token" not in refused.output
    first, (level, text) = _said(refused, "api")
    assert (first, level) == (answers, "problem")
    assert "it refuses the token: HTTP 401 unauthorized: the token is not accepted here" in text


async def test_only_a_broker_with_work_and_without_workers(redis_transport: str) -> None:
    async with open_queue(redis_transport) as queue:
        await publish(queue, life("waiting"))
    done = await _check("--transport", redis_transport.replace("partitions=4", "partitions=8"))
    assert done.status == 0
    said = {text.partition(":")[0]: (level, text) for level, text in _said(done, "broker")}
    level, text = said["workers"]
    assert level == "warning"
    assert "none is there, and 5 operations wait" in text
    assert "prefactor-worker run" in text
    assert (
        said["partitions"][0],
        said["partitions"][1].removeprefix("partitions: ").partition(";")[0],
    ) == ("warning", "the URL asks for 8 partitions, and the 4 that are recorded count")
    assert _said(done, "api") == [("not given", "an API: name one with --api-url, or set PREFACTOR_API_URL")]


# -- broken


async def test_nothing_listens_or_there_is_no_way_in(amqp_url: str) -> None:
    api, host = free_port(), amqp_url.rpartition("@")[2]
    redis, rabbitmq, stranger = await asyncio.gather(
        _check(
            *("--transport", f"redis://me:secret@127.0.0.1:{free_port()}/"),
            *("--api-url", f"http://me:secret@127.0.0.1:{api}"),
            PREFACTOR_API_TOKEN=TOKEN,
        ),
        _check("--transport", f"amqp://127.0.0.1:{free_port()}/"),
        _check("--transport", f"amqp://nobody:secret@{host}"),
    )
    for done, words in (
        (redis, "cannot be reached"),
        (rabbitmq, "Nothing more of it could be checked"),
        (stranger, "Nothing more of it could be checked"),
    ):
        assert done.status == 1
        ((level, text),) = _said(done, "broker")
        assert level == "problem"
        assert words in text
        assert "secret" not in done.output
    ((level, text),) = _said(redis, "api")
    assert level == "problem"
    assert f"http://127.0.0.1:{api} cannot be reached" in text


async def test_settings_that_lose_operations(make_redis_server: Callable[..., RedisServer]) -> None:
    server = make_redis_server("maxmemory-policy allkeys-lru", "appendonly no")
    done = await _check("--transport", server.url)
    assert done.status == 1
    said = _said(done, "broker")
    assert [level for level, text in said if "maxmemory-policy is allkeys-lru" in text] == ["problem"]
    assert [level for level, text in said if "appendonly is no" in text] == ["warning"], (
        "some live with that on purpose"
    )


async def test_something_else_answers(emulator: str) -> None:
    with web_page(HTTPStatus.OK) as port:
        url = f"http://127.0.0.1:{port}"
        tls = emulator.replace("http:", "https:")
        done, secure = await asyncio.gather(
            _check("--api-url", url, PREFACTOR_API_TOKEN=TOKEN),
            _check("--api-url", tls, PREFACTOR_API_TOKEN=TOKEN),
        )
    assert done.status == 1
    ((level, text),) = _said(done, "api")
    assert level == "problem"
    assert f"something else answers at {url}: HTTP 200 without the API's JSON" in text
    ((_, text),) = _said(secure, "api")
    assert "speaks no TLS" in text


# -- every reply has its words


def _judged(reply: Reply, token: str | None = TOKEN) -> list[tuple[Level, str]]:
    findings = Findings("API")
    _judge(findings, "http://there", reply, token)
    return [(one.level, one.text) for one in findings.all]


def _error(status: int, code: str, message: str = "because") -> Reply:
    return Reply(status, {"status": "error", "code": code, "message": message})


REPLIES = [
    (Reply(200, {"status": "success", "details": {}}), Level.OK, "takes the token"),
    (_error(401, "unauthorized"), Level.PROBLEM, "refuses the token: HTTP 401 unauthorized: because"),
    (_error(403, "forbidden"), Level.PROBLEM, "refuses the token"),
    (_error(429, "too_many_requests"), Level.WARNING, "fewer requests"),
    (_error(503, "unavailable"), Level.PROBLEM, "there and in trouble"),
    (_error(404, "not_found"), Level.PROBLEM, "base URL"),
    (Reply(200), Level.PROBLEM, "something else answers"),
    (Reply(200, empty=True), Level.PROBLEM, "something else answers"),
    (Reply(200, {"hello": "you"}), Level.PROBLEM, "something else answers"),
    (Reply(301), Level.PROBLEM, "sends elsewhere"),
    (Reply(401), Level.PROBLEM, "something between here and the API"),
    (Reply(407), Level.PROBLEM, "proxy"),
    (Reply(404), Level.PROBLEM, "something else answers"),
    (Reply(502), Level.PROBLEM, "behind a proxy"),
]


def test_what_a_reply_means() -> None:
    for reply, level, words in REPLIES:
        found, text = _judged(reply)[-1]
        assert found is level, reply
        assert words in text, reply


def test_the_api_may_quote_the_token_and_check_does_not() -> None:
    ((_, _), (_, text)) = _judged(_error(401, "unauthorized", f"{TOKEN} is unknown\x1b[2J"))
    assert "*** is unknown" in text
    assert TOKEN not in text
    assert "\x1b" not in text


async def test_why_there_was_no_reply() -> None:
    certificate = ssl.SSLCertVerificationError("CERTIFICATE_VERIFY_FAILED")
    for failure, reached, words in (
        (f"ConnectError: {certificate}", False, "certificate"),
        ("ConnectError: [SSL: WRONG_VERSION_NUMBER] wrong version number", False, "no TLS"),
        ("ConnectError: All connection attempts failed", False, "cannot be resolved"),
        ("ReadTimeout", True, "no answer that is HTTP, or none in time"),
    ):
        reply = Reply(None, failure=failure, reached=reached)
        text = await _unreachable("https://me:secret@no-such-name.invalid", reply)
        assert words in text, failure
        assert "secret" not in text, failure


def test_a_finding_is_one_line() -> None:
    findings = Findings("API")
    findings.ok("two\nlines")
    assert findings.all == [Finding("API", Level.OK, "two lines")]
