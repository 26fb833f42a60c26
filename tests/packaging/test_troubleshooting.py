"""Whatever a user can be told stands in docs/troubleshooting.md, with what to do."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

PROJECT: Final = Path(__file__).parents[2]
PAGE: Final = PROJECT / "docs" / "troubleshooting.md"
LEVELS: Final = {"warning", "error", "exception", "critical", "log"}
HELPERS: Final = {"_say", "_warn", "once", "say", "warn_once"}
"""Functions that log what they are given."""
ERRORS: Final = {
    "ClientAlreadyInitializedError": 0,
    "ClientClosedError": 0,
    "ClientNotInitializedError": 0,
    "InstanceNotFoundError": 0,
    "InvalidIdentifierError": 1,
    "InvalidInputError": 1,
    "InvalidPayloadError": 1,
    "MissingDriverError": 0,
    "PrefactorTelemetryFailureError": 0,
    "QueueClosedError": 0,
    "SpanNotFoundError": 0,
    "UnknownTransportError": 0,
}
"""Errors that agents meet, and the place of the message among their arguments."""
WORDLESS: Final = {
    "prefactor_core/api/packing.py": "what its helper is given stands where that is called",
    "prefactor_core/outage.py": "what an Outage is made with stands there",
    "transports/prefactor_rabbitmq/connector.py": "is no warning, but INFO or DEBUG",
    "transports/prefactor_redis/consuming.py": "the problems that `prefactor-worker check` names, too",
    "worker/prefactor_worker/run/watch.py": "the same",
}
"""Modules that log something without words of its own, and why that is not missed."""


def modules() -> Iterator[tuple[str, ast.Module]]:
    for folder in ("prefactor_core", "transports", "worker"):
        for path in sorted((PROJECT / folder).rglob("*.py")):
            yield str(path.relative_to(PROJECT)), ast.parse(path.read_text())


def template(node: ast.expr | None, constants: dict[str, ast.expr]) -> str:
    """Return a message with dots for what differs; nothing but dots if it has no words of its own."""
    if isinstance(node, ast.Name):
        node = constants.get(node.id)
    match node:
        case ast.Constant(value=str(text)):
            shown = re.sub(r"%[.\d]*[sdfr]", "…", text)
        case ast.JoinedStr(values=parts):
            shown = "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in parts)
        case _:
            shown = "…"
    return re.sub("…+", "…", shown)


def called(node: ast.Call) -> tuple[str, str]:
    """Return what a function is a method of, if it is one, and its name."""
    if isinstance(node.func, ast.Attribute):
        return ast.unparse(node.func.value), node.func.attr
    return "", ast.unparse(node.func)


def has_words(message: str) -> bool:
    return re.search("[a-z]", message) is not None


def messages(tree: ast.Module) -> Iterator[str]:
    """Yield the messages of a module."""
    assigned = [node for node in ast.walk(tree) if isinstance(node, ast.Assign)]
    constants = {ast.unparse(node.targets[0]): node.value for node in assigned}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        whose, name = called(node)
        given = [template(argument, constants) for argument in node.args]
        if whose.endswith("logger") and name in LEVELS:
            yield given[name == "log"]
        elif name == "afterwards" and "logger." in ast.unparse(node.args[0]):
            yield given[1]
        elif name in HELPERS:
            yield from (one for one in given if " " in one and has_words(one))
        elif name == "Outage":
            yield f"{given[1]} {given[2] if len(given) > 2 else 'is unavailable'}: …"
        elif name in ERRORS:
            yield from filter(has_words, given[ERRORS[name] :][:1])


def test_every_message_is_on_the_page() -> None:
    page = " ".join(PAGE.read_text().split())
    found, missing = 0, []
    for module, tree in modules():
        for message in messages(tree):
            found += 1
            if has_words(message):
                missing += [f"{module}: {message}"] if message not in page else []
            else:
                assert module in WORDLESS, module
    assert found > 80
    assert missing == []


def test_what_is_left_out_is_there() -> None:
    wordless = {module for module, tree in modules() if not all(map(has_words, messages(tree)))}
    assert wordless == WORDLESS.keys()
