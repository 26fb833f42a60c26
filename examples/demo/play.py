"""What happens: agents are started and watched; what came of it is read back, and compared."""

import json
import statistics
import time
from pathlib import Path
from typing import Final

from agents import Job, Work
from children import Child, Children, DemoError
from fleet import Fleet
from readback import Emulator
from report import Progress, Report, duration

_PROGRAM: Final = str(Path(__file__).with_name("agents.py"))
_LEAST_OPERATIONS: Final = 3_000
_LEAST_INSTANCES: Final = 24
_SPREAD_SECONDS: Final = 6.0
_FAULTS: Final = ("lost", "doubled", "out_of_order", "unexpected")
_LATE_SECONDS: Final = 5.0  # an effect may still come so long after all is delivered
_STILL_SECONDS: Final = 45.0  # without a change, there will be none any more


def play(children: Children, emulator: Emulator, fleet: Fleet | None, job: Job, progress: Progress) -> Report:
    """Have agents do a job; with a fleet again and again, so that there is a middle to kill a worker in."""
    asked, processes, spread = job.questions, 1, 0.0
    if fleet:
        operations = len(job.questions) * (2 * (len(job.files) + 4) + 3)
        rounds = max(-(-_LEAST_OPERATIONS // operations), -(-_LEAST_INSTANCES // len(job.questions)))
        asked, processes, spread = asked * rounds, 2, _SPREAD_SECONDS
    progress.say(f"{len(asked)} agent instances, {len(job.files)} files; telemetry to {emulator.url}")
    agents, jobs = [], []
    for number in range(processes):
        share = asked[number::processes]
        jobs.append(children.folder / f"{number}.job")
        part = Job(questions=share, files=job.files, interval=spread / len(share))
        jobs[-1].write_text(part.model_dump_json())
        variables = fleet.variables if fleet else emulator.variables
        agents.append(children.start(f"agents {number + 1}", _PROGRAM, str(jobs[-1]), **variables))
    _watch(agents, emulator, fleet, len(asked), progress)
    works = [Work.model_validate_json(job.with_suffix(".work").read_bytes()) for job in jobs]
    puts = b"".join(job.with_suffix(".puts").read_bytes() for job in jobs)
    return _report(job, works, emulator, fleet, puts)


def _watch(agents: list[Child], emulator: Emulator, fleet: Fleet | None, asked: int, view: Progress) -> None:
    """Show how far it is until all is done; a worker is killed on the way."""
    before: tuple[int, ...] = ()
    moved = 0.0
    while True:
        ended = [agent.check() for agent in agents]
        told = {agent.name: json.loads(agent.last_line() or "{}") for agent in agents}
        answered, put, delivered = (
            sum(each.get(figure, 0) for each in told.values()) for figure in ("answered", "put", "delivered")
        )
        effects, backlog = sum(emulator.stats()["effects"].values()), 0
        shown = {name: ", ".join(f"{k} {v}" for k, v in each.items()) for name, each in told.items()}
        if fleet:
            fleet.look(answered / asked, effects, put)
            backlog = fleet.status("backlog")
            shown |= {worker.child.name: worker.words for worker in fleet.workers}
            shown["broker"] = f"{backlog} in the backlog"
        view.show(shown | {"API": f"{effects} effects"})
        now = (answered, put, delivered, backlog, effects)
        if now != before:
            before, moved = now, time.monotonic()
        still = time.monotonic() - moved
        if all(ended) and backlog == 0 and (effects >= put or still > _LATE_SECONDS):
            return
        if still > _STILL_SECONDS:
            raise DemoError(f"nothing moves any more: put {put}, {effects} have taken effect, {shown}")
        time.sleep(0.2)


def _report(job: Job, works: list[Work], emulator: Emulator, fleet: Fleet | None, puts: bytes) -> Report:
    summaries = [work.summary for work in works]
    delivery = {f"agents {number} put": each.put for number, each in enumerate(summaries, 1)}
    delivery["delivered, or confirmed by the broker"] = sum(each.delivered for each in summaries)
    delivery["dead-lettered"] = sum(each.dead_lettered for each in summaries)
    delivery["dropped"] = sum(sum(each.dropped.values()) for each in summaries)
    delivery["left"] = sum(each.left for each in summaries)
    problems = [each.in_words() for each in summaries if not each.complete]
    if fleet:
        delivery |= {f"{worker.child.name} settled": worker.settled for worker in fleet.workers}
        delivery["dead letters at the broker"] = fleet.status("dead_letters")
        problems += [] if fleet.kill else ["everything was settled before a worker could be killed"]
    stats, found = emulator.stats(), emulator.verify(puts)
    delivery |= {f"effects: {name}": count for name, count in stats["effects"].items()}
    counts = [f"{name.replace('_', ' ')} {found[name]}" for name in _FAULTS]
    problems += [", ".join(counts)] if any(found[name] for name in _FAULTS) else []
    costs = sorted(cost for work in works for cost in work.span_costs)
    working = sum(work.working for work in works)
    by_question = {answer.question: answer for work in works for answer in work.answers}
    answers = [by_question[question] for question in dict.fromkeys(job.questions)]
    return Report(
        answers=answers,
        runs=[emulator.run(answer.instance_id) for answer in answers],
        delivery=delivery | {"API requests": stats["requests"]},
        cost={
            "the agents' work, added up": duration(working),
            "of it inside the SDK's calls": f"{duration(sum(costs))}, {sum(costs) / working:.2%}",
            f"for one of {len(costs)} spans, median": duration(statistics.median(costs)),
            "for one span, 99th percentile": duration(costs[int(0.99 * (len(costs) - 1))]),
        },
        problems=problems,
        proof=f"put {found['puts']}, took effect {found['effects']}, {', '.join(counts)}",
    )
