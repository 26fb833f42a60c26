"""The demo as it is used: a process on real files, with its telemetry read back; and the search it does."""

import io
import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from rich.console import Console

from prefactor_core import CloseSummary
from prefactor_worker.demo.documents import DocumentError, Documents, default_paths, find_documents
from prefactor_worker.demo.meter import Meter, TelemetryCost
from prefactor_worker.demo.outcome import AgentRun, Outcome, Timing, compare
from prefactor_worker.demo.passages import Passage, Sentence, split_passages
from prefactor_worker.demo.readback import Effect
from prefactor_worker.demo.report import ConsoleReporter
from prefactor_worker.demo.search import PassageIndex, best_sentences, search_terms, tokenise
from tests.emulator.driver import EmulatorProcess

ROOT = Path(__file__).parents[2]
BARK = "When do dogs bark?"
PURR = "Why does a cat purr?"

ANIMALS = """\
# Animals

The house has a garden. It is green.

## Dogs

Dogs are loyal. At night the dogs of the village
bark at the moon. Then they sleep.

- Birds sing in the morning.
- Fish say nothing.
"""
CATS = '''\
"""What is known of pets."""


def purr() -> None:
    """Make a sound.

    A cat will purr because
    it is content.
    """
'''


def environment(**more: str) -> dict[str, str]:
    path = [str(ROOT), str(ROOT / "worker"), str(ROOT / "emulator"), os.environ.get("PYTHONPATH", "")]
    inherited = {name: value for name, value in os.environ.items() if name != "PREFACTOR_API_TOKEN"}
    return inherited | {"PYTHONPATH": os.pathsep.join(filter(None, path)), "COLUMNS": "120"} | more


def demo(*arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "prefactor_worker", "demo", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=cwd,
        env=environment(**variables),
    )


@contextmanager
def running_demo(*arguments: str, cwd: Path, **variables: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "prefactor_worker", "demo", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env=environment(**variables),
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("documents")
    (folder / "deep").mkdir()
    (folder / "animals.md").write_text(ANIMALS)
    (folder / "deep" / "cats.py").write_text(CATS)
    (folder / "broken.txt").write_bytes(b"dogs bark \xff\xfe")
    (folder / "photo.bin").write_bytes(b"\x89PNG\0\0")
    (folder / ".hidden.md").write_text("Dogs bark in hiding.")
    return folder


@pytest.fixture(scope="module")
def document(folder: Path) -> dict[str, Any]:
    done = demo(".", "-q", BARK, "-q", PURR, "--json", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


# -- the demo as a process


def test_answers_cite_the_line_that_says_so(document: dict[str, Any]) -> None:
    bark, purr = document["answers"]
    assert (bark["question"], purr["question"]) == (BARK, PURR)
    assert bark["sentences"][0] == {
        "text": "At night the dogs of the village bark at the moon.",
        "source": "animals.md:7",
    }
    assert purr["sentences"][0] == {
        "text": "A cat will purr because it is content.",
        "source": "deep/cats.py:7",
    }
    assert document["files"] == ["animals.md", "broken.txt", "deep/cats.py"]
    assert document["skipped"] == {"photo.bin": "not text"}


def test_the_trees_read_back_are_what_happened(document: dict[str, Any], folder: Path) -> None:
    assert len(document["traces"]) == 2
    for trace, answer in zip(document["traces"], document["answers"], strict=True):
        assert trace["instance_id"] == answer["instance_id"]
        assert trace["status"] == "complete"
        (run,) = trace["spans"]
        assert (run["schema_name"], run["status"], run["parent_span_id"]) == ("agent:run", "complete", None)
        assert run["payload"] == {"question": answer["question"], "files": 3}
        assert run["result_payload"] == {
            "answer": [sentence["text"] for sentence in answer["sentences"]],
            "sources": [sentence["source"] for sentence in answer["sentences"]],
        }
        children = run["children"]
        assert [child["schema_name"].removeprefix("agent:") for child in children] == [
            "plan",
            *["read"] * 3,
            "search",
            "rank",
            "answer",
        ]
        assert {child["parent_span_id"] for child in children} == {run["id"]}
        assert all(child["children"] == [] and child["seconds"] >= 0 for child in children)
        plan, animals, _, cats, search, rank, last = children
        terms = plan["result_payload"]["terms"]
        assert terms == search_terms(answer["question"])
        assert animals["payload"] == {"file": "animals.md"}
        assert animals["result_payload"] == {"characters": len(ANIMALS), "lines": 11, "passages": 4}
        assert cats["result_payload"]["characters"] == (folder / "deep" / "cats.py").stat().st_size
        assert search["payload"] == {"terms": terms, "passages": 7}
        assert search["result_payload"]["passages_by_term"].keys() == set(terms)
        found = len(rank["result_payload"]["best"])
        assert search["result_payload"]["matching"] == rank["payload"]["candidates"] == found > 0
        assert last["payload"]["passages"] == [entry["source"] for entry in rank["result_payload"]["best"]]
        assert [sentence["text"] for sentence in last["result_payload"]["sentences"]] == run[
            "result_payload"
        ]["answer"]


def test_a_broken_file_is_a_failed_span(document: dict[str, Any]) -> None:
    for trace in document["traces"]:
        (failed,) = [span for span in trace["spans"][0]["children"] if span["status"] != "complete"]
        assert (failed["status"], failed["payload"]) == ("failed", {"file": "broken.txt"})
        error = failed["result_payload"]["error"]
        assert error["type"].endswith(".UnreadableFileError")
        assert error["message"] == "not UTF-8: byte 10 is 0xff"


def test_the_account_adds_up(document: dict[str, Any]) -> None:
    delivery, timing = document["delivery"], document["timing"]
    assert document["ok"]
    assert document["problems"] == []
    assert delivery["effects"] == {
        "agent_instances/register": 2,
        "agent_instances/start": 2,
        "agent_instances/finish": 2,
        "agent_spans/create": 16,
        "agent_spans/finish": 16,
    }
    assert delivery["put"] == delivery["delivered"] == sum(delivery["effects"].values())
    assert (delivery["dead_lettered"], delivery["dropped"], delivery["left"]) == (0, {}, 0)
    assert delivery["requests"] >= 1
    assert timing["spans"] == 16
    assert 0 < timing["span_median"] <= timing["span_p99"] < timing["telemetry"] < timing["running"]
    assert timing["telemetry_share"] == pytest.approx(timing["telemetry"] / timing["running"])


def test_people_get_trees_answers_and_tables(folder: Path) -> None:
    done = demo("animals.md", "broken.txt", "-q", BARK, cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    for words in (
        r"agent instance [0-9a-z]{32}  complete",
        r"└── agent:run  complete .*question: When do dogs bark\?",
        r"    ├── agent:plan  complete ",
        r"    ├── agent:read  failed .*file: broken.txt",
        r"    └── agent:answer  complete ",
        r"At night the dogs of the village bark at the moon\. \[animals.md:7\]",
        r"│ operations put +│ 17 │",
        r"│ effects: agent_spans/create +│ +7 │",
        r"of it inside the SDK's calls",
        r"took effect exactly once",
    ):
        assert re.search(words, done.stdout), words


def test_many_spans_alike_take_one_line_unless_all_are_asked_for(tmp_path: Path) -> None:
    for number in range(9):
        (tmp_path / f"{number}.txt").write_text(f"Dog number {number} barks.")
    assert "6 more agent:read, complete" in demo(".", "-q", BARK, cwd=tmp_path).stdout
    full = demo(".", "-q", BARK, "--full", cwd=tmp_path).stdout
    assert full.count("agent:read  complete") == 9


def test_an_agent_without_anything_to_read_has_failed_and_says_so(folder: Path) -> None:
    done = demo("broken.txt", "-q", BARK, "--json", cwd=folder)
    document = json.loads(done.stdout)
    assert done.returncode == 0, "it is the agent that failed: its telemetry is all there"
    assert document["answers"][0]["failure"] == "none of the 1 files could be read"
    (trace,) = document["traces"]
    assert [trace["status"], trace["spans"][0]["status"]] == ["failed", "failed"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "nowhere: No such file or directory"),
        (["photo.bin"], "no text files in photo.bin"),
        (["/dev/null"], "/dev/null: neither a file nor a folder"),
        ([".", "-q", "What is it?"], "'What is it?' has no word to search for"),
        ([".", "--fast"], "No such option: --fast"),
        ([".", "--port", "70000"], "--port"),
        ([".", "--api-url", "http://127.0.0.1:9"], "PREFACTOR_API_TOKEN"),
        ([".", "--api-url", "ftp://there"], "expected http:// or https://"),
        ([".", "--api-url", "http://127.0.0.1:9", "--keep"], "leave --api-url"),
    ],
)
def test_a_mistake_is_told_in_one_line(folder: Path, arguments: list[str], words: str) -> None:
    token = {"PREFACTOR_API_TOKEN": "token"} if "ftp://there" in arguments else {}
    done = demo(*arguments, cwd=folder, **token)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("prefactor-worker: ")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_taken_port_is_told_in_one_line(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = demo(".", "-q", BARK, "--port", str(taken.getsockname()[1]), cwd=folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert "the emulator did not start: " in done.stderr
    assert "Address already in use" in done.stderr
    assert done.stderr.count("\n") == 1


def test_what_was_not_delivered_is_no_success(folder: Path) -> None:
    with EmulatorProcess("--fault", "reject:rate=1,status=422") as emulator:
        arguments = (".", "-q", BARK, "--json", "--api-url", emulator.url)
        done = demo(*arguments, cwd=folder, PREFACTOR_API_TOKEN="token")
    document = json.loads(done.stdout)
    assert done.returncode == 1
    assert not document["ok"]
    assert document["delivery"]["delivered"] < document["delivery"]["put"]
    last = done.stderr.splitlines()[-1]
    assert last.startswith("prefactor-worker: ")
    assert "operations were delivered" in last
    assert "effects are missing" in last


def test_an_emulator_that_others_use_too_is_read_back(folder: Path) -> None:
    with EmulatorProcess() as emulator, emulator.api() as api:
        api.instance()
        arguments = (".", "-q", BARK, "--json", "--api-url", emulator.url)
        done = demo(*arguments, cwd=folder, PREFACTOR_API_TOKEN="token")
        assert done.returncode == 0, done.stderr
        document = json.loads(done.stdout)
        assert document["delivery"]["effects"]["agent_instances/register"] == 1
        assert len(api.look("instances")["instances"]) == 2


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_the_page_is_kept_until_a_signal_and_then_gone(folder: Path, stop: signal.Signals) -> None:
    with running_demo(".", "-q", BARK, "--json", "--keep", cwd=folder) as process:
        assert process.stderr is not None
        url = process.stderr.readline().split(" until ")[0].split()[-1]
        assert "Document reader" in httpx.get(url, timeout=10).text
        process.send_signal(stop)
        output, errors = process.communicate(timeout=30)
        assert (process.returncode, errors) == (0, "")
        assert json.loads(output)["ok"]
        with pytest.raises(httpx.ConnectError):
            httpx.get(url, timeout=10)


@pytest.mark.parametrize(
    ("stop", "status", "words"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "ended by a signal")],
)
def test_a_signal_ends_it_while_it_waits(folder: Path, stop: signal.Signals, status: int, words: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(30)
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        arguments = (".", "-q", BARK, "--api-url", url)
        with running_demo(*arguments, cwd=folder, PREFACTOR_API_TOKEN="token") as process:
            connection, _ = silent.accept()
            with connection:
                process.send_signal(stop)
                output, errors = process.communicate(timeout=15)
            assert (process.returncode, output) == (status, "")
            assert errors == f"prefactor-worker: {words}\n"


# -- what is checked and printed


def test_each_effect_is_expected_once() -> None:
    meter = Meter()
    meter.instance_ids.append("i")
    meter.instance_of["s"] = "i"
    steps = [Effect(f"agent_instances/{step}", "i", None) for step in ("register", "start", "finish")]
    spans = [Effect(f"agent_spans/{step}", "i", "s") for step in ("create", "finish")]
    assert compare(meter, 5, steps + spans) == []
    assert compare(meter, 4, steps + spans) == ["the agents did 5 things, and 4 operations were put"]
    (missing,) = compare(meter, 5, steps + spans[:1])
    assert missing == "1 effects are missing at the emulator, agent_spans/finish of s among them"
    (twice,) = compare(meter, 5, [*steps, *spans, steps[0]])
    assert twice.startswith("1 effects should not be there at the emulator, agent_instances/register of i")


def test_without_an_emulator_it_is_said_that_nothing_was_read_back() -> None:
    outcome = Outcome(
        api_url="https://api.example",
        documents=Documents(),
        runs=[AgentRun("Why \x1b[31mred?", "i")],
        summary=CloseSummary(put=5, delivered=5),
        timing=Timing(0.1, 1.0, 0.1, TelemetryCost(1, 0.001, 0.001, 0.001, 0.001)),
        readback=None,
    )
    printed = io.StringIO()
    ConsoleReporter(Console(file=printed, width=120), full=False).report(outcome)
    assert "https://api.example is no emulator: its traces cannot be read back here" in printed.getvalue()
    assert "was delivered, but was not read back" in printed.getvalue()
    assert "\x1b" not in printed.getvalue(), "files and questions do not speak to the terminal"


async def test_the_meter_adds_up_the_calls_of_each_span() -> None:
    ticks = iter(range(100))
    meter = Meter(clock=lambda: float(next(ticks)))

    async def call() -> str:
        return "done"

    for span_id, calls in (("a", 1), ("b", 2), ("c", 3)):
        for _ in range(calls):
            result, seconds = await meter.timed(call())
            assert (result, seconds) == ("done", 1.0)
            meter.add_span_seconds(span_id, seconds)
    meter.add_instance_seconds(4.0)
    assert meter.cost == TelemetryCost(3, 6.0, 2.0, 3.0, 4.0)
    assert meter.cost.total == 10.0


# -- documents


def test_the_projects_own_documents_are_found_from_within_it(tmp_path: Path) -> None:
    package = tmp_path / "checkout" / "prefactor_core"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package.parent / "pyproject.toml").touch()
    (package.parent / "README.md").touch()
    inside = package.parent / "docs"
    inside.mkdir()
    installed = Path("/site-packages/prefactor_core")
    assert default_paths(inside, installed) == [package.parent / "README.md", package]
    assert default_paths(tmp_path, installed) == [installed]


def test_too_large_empty_and_doubly_named_files(tmp_path: Path) -> None:
    (tmp_path / "large.txt").write_text("x" * 600_000)
    (tmp_path / "empty.txt").touch()
    (tmp_path / "good.txt").write_text("Good.")
    found = find_documents([tmp_path, tmp_path / "good.txt"], tmp_path)
    assert [file.name for file in found.files] == ["good.txt"]
    assert [(file.name, file.reason) for file in found.skipped] == [
        ("empty.txt", "empty"),
        ("large.txt", "larger than 524,288 bytes"),
    ]
    with pytest.raises(DocumentError, match="no text files"):
        find_documents([tmp_path / "empty.txt"], tmp_path)


# -- passages


def test_paragraphs_and_items_with_their_lines() -> None:
    passages = split_passages("a.md", ANIMALS)
    assert [(passage.title, passage.source) for passage in passages] == [
        ("Animals", "a.md:3"),
        ("Dogs", "a.md:7"),
        ("Dogs", "a.md:10"),
        ("Dogs", "a.md:11"),
    ]
    assert [(sentence.text, sentence.line) for sentence in passages[1].sentences] == [
        ("Dogs are loyal.", 7),
        ("At night the dogs of the village bark at the moon.", 7),
        ("Then they sleep.", 8),
    ]


def test_fenced_code_is_no_passage_and_lines_still_count() -> None:
    (before, after) = split_passages("a.md", "Before.\n```\nprint(1)\n```\nAfter.\n")
    assert (before.source, after.source) == ("a.md:1", "a.md:5")


def test_python_is_its_docstrings_under_the_names_they_document() -> None:
    passages = split_passages("cats.py", CATS)
    assert [(passage.title, passage.source, passage.text) for passage in passages] == [
        ("", "cats.py:1", "What is known of pets."),
        ("purr", "cats.py:5", "Make a sound."),
        ("purr", "cats.py:7", "A cat will purr because it is content."),
    ]
    (words,) = split_passages("not.py", "This is no Python.\n")
    assert words.text == "This is no Python."


# -- ranking


def passage(text: str, title: str = "") -> Passage:
    return Passage("f", title, (Sentence(text, 1),))


def ranking(terms: list[str], *texts: str) -> list[str]:
    index = PassageIndex(map(passage, texts))
    return [entry.passage.text for entry in index.rank(terms, index.matching(terms), 10)]


def test_terms_are_the_stems_of_what_carries_meaning() -> None:
    assert search_terms("What happens to the operations that were delivered?") == ["operation", "deliver"]
    assert tokenise("SpanManager span_id deliveries") == ["span", "manag", "span", "id", "deliver"]
    assert search_terms("What is it?") == []


def test_bm25_is_what_its_formula_says() -> None:
    index = PassageIndex([passage("cat cat dog"), passage("dog"), passage("bird fish")])
    (best,) = index.rank(["cat"], index.matching(["cat"]), 5)
    weight = math.log(1 + (3 - 1 + 0.5) / (1 + 0.5))
    length = 1 - 0.75 + 0.75 * 3 / 2
    assert best.score == pytest.approx(weight * 2 * 2.2 / (2 + 1.2 * length))


def test_the_rarer_word_counts_more() -> None:
    assert ranking(["dog", "owl"], "dog runs", "dog eats", "owl eats", "dog digs")[0] == "owl eats"


def test_the_shorter_passage_says_it_more_clearly() -> None:
    assert ranking(["owl"], "owl and many other birds of the wood", "owl hoots") == [
        "owl hoots",
        "owl and many other birds of the wood",
    ]


def test_repeating_one_word_does_not_beat_holding_both() -> None:
    assert (
        ranking(["owl", "night"], "owl owl owl owl owl owl", "owl at night it is")[0] == "owl at night it is"
    )


def test_titles_are_searched_and_equals_keep_their_order() -> None:
    index = PassageIndex([passage("It hoots.", "Owls"), passage("Nothing."), passage("It hoots.", "Owls")])
    assert index.matching(search_terms("owl")) == [0, 2]
    assert index.rank(["owl"], [0, 2], 1)[0].passage is index.rank(["owl"], [0, 2], 2)[0].passage
    assert ranking(["absent"], "owl hoots") == []


def test_the_same_sentence_is_an_answer_once() -> None:
    index = PassageIndex([passage("The owl hoots at night."), passage("The owl hoots at night.")])
    ranked = index.rank(["owl"], index.matching(["owl"]), 5)
    assert len(best_sentences(index, ["owl"], ranked, 5)) == 1
