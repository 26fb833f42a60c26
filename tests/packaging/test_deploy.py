"""What the fleet is deployed with: it parses, it fits the program, and it fits together."""

import configparser
import json
import os
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from prometheus_client import CollectorRegistry

from prefactor_core.broker.options import DEFAULT_PARTITIONS
from prefactor_core.variables import OF_WORKERS, PREFIX
from prefactor_worker.run.health import Health
from prefactor_worker.run.meter import Meter
from prefactor_worker.run.server import serving
from prefactor_worker.run.settings import RunSettings
from prefactor_worker.run.worker import Worker
from prefactor_worker.token import FixedToken

PROJECT = Path(__file__).parents[2]
WORKER = PROJECT / "worker"
DEPLOY = WORKER / "deploy"
GRAFANA = DEPLOY / "grafana"
README = WORKER / "README.md"
COMPOSE = PROJECT / "docker-compose.yml"
KUBERNETES = DEPLOY / "kubernetes.yaml"
UNIT = DEPLOY / "prefactor-worker.service"
ARTIFACTS = [
    WORKER / "Dockerfile",
    README,
    COMPOSE,
    *(path for path in sorted(DEPLOY.rglob("*")) if path.is_file()),
]
VARIABLE = re.compile(r"\bPREFACTOR_[A-Z]+(?:_[A-Z]+)*")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
METRIC = re.compile(r"\bprefactor_[a-z_]+")
OF_THE_SCRAPE = {"job", "instance", "le"}
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}


class Option(NamedTuple):
    """An option as ``--help`` shows it."""

    variable: str
    default: str


@cache
def help_of(*command: str) -> str:
    program = [sys.executable, "-m", "prefactor_worker", *command, "--help"]
    return subprocess.run(program, capture_output=True, text=True, check=True).stdout


def run_options() -> dict[str, Option]:
    found: dict[str, Option] = {}
    for text in re.split(r"^  (?=--)", help_of("run"), flags=re.MULTILINE)[1:]:
        name = text.split()[0]
        if name == "--help":
            continue
        variable = re.search(r"env\s+var:\s+(\w+)", text)
        default = re.search(r"default:\s+([^\s;\]]+)", text)
        assert variable, text
        missing = "required" if "required]" in text else ""
        found[name] = Option(variable[1], default[1] if default else missing)
    return found


def grace_by_default() -> float:
    return float(run_options()["--grace"].default)


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def of_kind(kind: str) -> dict[str, Any]:
    (found,) = [document for document in documents(KUBERNETES) if document["kind"] == kind]
    return found


def pod_and_container() -> tuple[dict[str, Any], dict[str, Any]]:
    pod = of_kind("Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    return pod, container


def variables_of(container: dict[str, Any]) -> dict[str, Any]:
    return {one["name"]: one.get("value") for one in container["env"]}


def services() -> dict[str, dict[str, Any]]:
    (compose,) = documents(COMPOSE)
    found = compose["services"]
    assert isinstance(found, dict)
    return found


def unit() -> configparser.SectionProxy:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(UNIT.read_text())
    return parser["Service"]


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's, with their arguments on one line."""
    text = (WORKER / "Dockerfile").read_text()
    lines = re.sub(r"\\\n\s*", " ", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)).splitlines()
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in lines) if name]


def instruction(name: str) -> str:
    (found,) = [rest for kind, rest in instructions() if kind == name]
    return found


def table(heading: str) -> list[list[str]]:
    """The rows of the README's table under a heading, without the code marks."""
    section = README.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip().strip("`") for cell in row] for row in rows[2:]]


@pytest.fixture
async def metrics() -> dict[str, tuple[str, set[str]]]:
    """Kind and labels of each metric that a worker shows."""
    worker = Worker(RunSettings("redis://127.0.0.1:1", "http://127.0.0.1:1", FixedToken("token", "the test")))
    await worker.pipeline.http.close()
    collectors: list[Any] = list(worker.registry._collector_to_names)
    return {one._name: (one._type, set(one._labelnames)) for one in collectors}


@pytest.fixture
def samples(metrics: dict[str, tuple[str, set[str]]]) -> dict[str, set[str]]:
    """Labels of each series, by its name in a query."""
    return {name + suffix: labels for name, (kind, labels) in metrics.items() for suffix in SUFFIXES[kind]}


def check_query(query: str, samples: dict[str, set[str]]) -> set[str]:
    """Hold a query against what there is, and return the names in it."""
    names = set(METRIC.findall(query))
    assert names, query
    assert names <= samples.keys(), query
    labels = set.union(*(samples[name] for name in names)) | OF_THE_SCRAPE
    for grouping in re.findall(r"\bby\s*\(([^)]*)\)", query):
        assert {label.strip() for label in grouping.split(",")} <= labels, query
    return names


def panels() -> list[dict[str, Any]]:
    found = json.loads((GRAFANA / "dashboard.json").read_text())["panels"]
    assert isinstance(found, list)
    return found


def test_every_variable_is_one_of_the_programs() -> None:
    known = set(VARIABLE.findall(help_of("run")))
    for path in ARTIFACTS:
        assert set(VARIABLE.findall(path.read_text())) <= known, path


def test_agents_know_the_workers_variables() -> None:
    assert set(VARIABLE.findall(help_of("run"))) == {f"{PREFIX}{name}" for name in OF_WORKERS}


def test_every_option_is_one_of_the_programs() -> None:
    _, container = pod_and_container()
    commands = [*container["args"], *unit()["ExecStart"].split(), *services()["worker"].get("command", [])]
    given = {word for word in commands if word.startswith("--")}
    assert given == {"--log-format"} <= run_options().keys()


def test_every_command_in_the_readme_is_there_with_its_options() -> None:
    lines = re.findall(r"^    prefactor-worker (.*)$", README.read_text(), flags=re.MULTILINE)
    assert len(lines) >= 8
    for line in lines:
        words = line.partition("#")[0].split()
        command = words[:2] if words[0] == "dead-letters" else words[: 0 if words[0].startswith("-") else 1]
        assert set(OPTION.findall(line)) <= set(OPTION.findall(help_of(*command))), line


def test_the_readme_lists_all_settings() -> None:
    listed = {option: Option(variable, default) for option, variable, default, _ in table("Settings")}
    assert listed == run_options()


async def test_the_readme_lists_all_metrics(metrics: dict[str, tuple[str, set[str]]]) -> None:
    listed = {name: set(labels.split()) for name, labels, _ in table("Metrics")}
    assert listed == {
        name + ("_total" if kind == "counter" else ""): labels for name, (kind, labels) in metrics.items()
    }


async def test_the_dashboard_shows_every_metric_and_no_other(
    samples: dict[str, set[str]], metrics: dict[str, tuple[str, set[str]]]
) -> None:
    used: set[str] = set()
    for panel in panels():
        assert panel["description"], panel["title"]
        for target in panel["targets"]:
            used |= check_query(target["expr"], samples)
    assert {re.sub(r"_(total|bucket)$", "", name) for name in used} == metrics.keys()


def test_the_dashboards_panels_do_not_overlap() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in panels():
        place = panel["gridPos"]
        for x in range(place["x"], place["x"] + place["w"]):
            assert x < 24
            for y in range(place["y"], place["y"] + place["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]
    assert len({panel["id"] for panel in panels()}) == len(panels())


async def test_the_alerts_ask_for_metrics_that_there_are(samples: dict[str, set[str]]) -> None:
    ((group,),) = [document["groups"] for document in documents(DEPLOY / "alerts.yml")]
    alerts = {rule["alert"]: rule for rule in group["rules"]}
    assert alerts.keys() == {
        "PrefactorOldestTooOld",
        "PrefactorDeadLettersRising",
        "PrefactorTokenRefused",
        "PrefactorNoWorker",
        "PrefactorPartitionsUnowned",
    }
    for alert in alerts.values():
        check_query(alert["expr"], samples)
        assert {"summary", "description"} <= alert["annotations"].keys()


def test_everybody_waits_longer_than_the_worker_takes_to_stop() -> None:
    pod, container = pod_and_container()
    given = variables_of(container)
    assert pod["terminationGracePeriodSeconds"] > float(given["PREFACTOR_GRACE"])
    # Several processes are given five seconds more.
    assert float(unit()["TimeoutStopSec"]) > grace_by_default() + 5
    worker = services()["worker"]
    grace = float(worker["environment"].get("PREFACTOR_GRACE", grace_by_default()))
    assert float(worker["stop_grace_period"].removesuffix("s")) > grace


def test_the_image_is_what_it_is_said_to_be() -> None:
    user, _, group = instruction("USER").partition(":")
    assert int(user) > 0 < int(group)
    assert instruction("STOPSIGNAL") == "SIGTERM"
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    (entry,) = json.loads(instruction("ENTRYPOINT"))
    assert entry in project["scripts"]
    assert json.loads(instruction("CMD")) == ["run"]
    (extras,) = re.findall(r"\.whl\)\[([a-z,]+)\]", (WORKER / "Dockerfile").read_text())
    assert set(extras.split(",")) <= project["optional-dependencies"].keys()
    assert instruction("EXPOSE") == run_options()["--metrics-port"].default
    # What it is built from is there, and sent to the builder.
    sent = (PROJECT / ".dockerignore").read_text().splitlines()
    copies = [rest for kind, rest in instructions() if kind == "COPY" and not rest.startswith("--from")]
    for source in [source for rest in copies for source in rest.split()[:-1]]:
        assert (PROJECT / source).exists()
        assert f"!{source}" in sent


def test_the_images_health_check_tells_a_worker_that_stands_still() -> None:
    check = json.loads(instruction("HEALTHCHECK").partition("CMD ")[2])
    assert run_options()["--metrics-port"].default in check[2]
    for alive in (True, False):
        health = Health(lambda: 1, Meter(CollectorRegistry()))
        if not alive:
            health.ticked_at -= 1_000
        with serving("127.0.0.1", 0, CollectorRegistry(), health) as port:
            # What is here needs no proxy.
            more = {"PREFACTOR_METRICS_PORT": str(port), "http_proxy": "http://127.0.0.1:1"}
            done = subprocess.run(
                [sys.executable, *check[1:]], capture_output=True, check=False, env={**os.environ, **more}
            )
        assert (done.returncode == 0) == alive


def test_compose_has_all_services_with_health_checks() -> None:
    found = services()
    assert {"redis", "rabbitmq", "emulator", "worker", "prometheus", "grafana"} <= found.keys()
    for name, service in found.items():
        assert service["healthcheck"]["test"], name
        assert service.get("profiles", []) == (["observe"] if name in {"prometheus", "grafana"} else []), name
        for needed in service.get("depends_on", {}):
            assert needed in found
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert not source.startswith(".") or (PROJECT / source).exists()
    assert found["emulator"]["entrypoint"] == ["prefactor-emulator"]
    assert "entrypoint" not in found["worker"]


def test_prometheus_scrapes_the_worker_and_grafana_asks_prometheus() -> None:
    (config,) = documents(DEPLOY / "prometheus.yml")
    (scrape,) = config["scrape_configs"]
    (target,) = scrape["dns_sd_configs"]
    assert target["names"] == ["worker"]
    assert str(target["port"]) == run_options()["--metrics-port"].default
    volumes = [*services()["prometheus"]["volumes"], *services()["grafana"]["volumes"]]
    inside = {path: source for source, path, *_ in (volume.split(":") for volume in volumes)}
    assert [inside[path] for path in config["rule_files"]] == ["./worker/deploy/alerts.yml"]
    (sources,) = documents(GRAFANA / "provisioning/datasources/prometheus.yaml")
    assert [source["url"] for source in sources["datasources"]] == ["http://prometheus:9090"]
    (dashboards,) = documents(GRAFANA / "provisioning/dashboards/prefactor.yaml")
    (provider,) = dashboards["providers"]
    shown = services()["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert Path(shown).parent == Path(provider["options"]["path"])
    assert inside[shown] == "./worker/deploy/grafana/dashboard.json"


def test_the_pod_finds_its_token_answers_its_probes_and_may_do_little() -> None:
    pod, container = pod_and_container()
    (mount,) = container["volumeMounts"]
    (volume,) = pod["volumes"]
    (item,) = volume["secret"]["items"]
    assert "subPath" not in mount
    assert volume["name"] == mount["name"]
    assert item["key"] in of_kind("Secret")["stringData"]
    given = variables_of(container)
    assert given["PREFACTOR_API_TOKEN_FILE"] == f"{mount['mountPath']}/{item['path']}"
    (port,) = container["ports"]
    assert str(port["containerPort"]) == run_options()["--metrics-port"].default
    probes = {name: container[name]["httpGet"] for name in ("livenessProbe", "readinessProbe")}
    assert probes == {
        "livenessProbe": {"path": "/healthz", "port": port["name"]},
        "readinessProbe": {"path": "/readyz", "port": port["name"]},
    }
    assert pod["enableServiceLinks"] is False
    # It may do little.
    assert pod["securityContext"]["runAsNonRoot"] is True
    ids = f"{pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}"
    assert ids == instruction("USER")
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["resources"]["limits"]["memory"]
    assert container["resources"]["requests"].keys() == {"cpu", "memory"}


async def test_the_fleet_is_scaled_by_what_waits_up_to_the_partitions(samples: dict[str, set[str]]) -> None:
    scaler = of_kind("HorizontalPodAutoscaler")["spec"]
    assert scaler["minReplicas"] <= scaler["maxReplicas"] <= DEFAULT_PARTITIONS
    assert "replicas" not in of_kind("Deployment")["spec"]
    (metric,) = scaler["metrics"]
    rule = re.search(r"seriesQuery: (\w+)\n#\s+name: \{as: (\w+)\}", KUBERNETES.read_text())
    assert rule
    assert rule[1] in samples
    assert rule[2] == metric["external"]["metric"]["name"]
    labels = of_kind("Deployment")["spec"]["template"]["metadata"]["labels"]
    assert of_kind("PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels


def test_systemd_hands_the_token_over_as_a_file_and_signals_one_process() -> None:
    service = unit()
    name, _, source = service["LoadCredential"].partition(":")
    assert Path(source).is_absolute()
    assert service["Environment"] == f"PREFACTOR_API_TOKEN_FILE=%d/{name}"
    assert service["KillMode"] == "mixed", "the first process only is signalled"
    assert service["DynamicUser"] == "yes"
    assert service["Restart"] == "on-failure"
    assert service["RestartPreventExitStatus"] == "2"
