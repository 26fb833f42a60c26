"""From agents that know nothing of the API, by way of a broker, to the API: everything, once, in order."""

from tests.support.fleet import Figures, Fleet

OPERATIONS = 50 * (3 + 2 * 40)


async def test_two_agents_and_one_worker(fleet: Fleet) -> None:
    agents = [await fleet.agent("--instances", "25"), await fleet.agent("--instances", "25")]
    for agent in agents:
        report = await fleet.report(agent)
        assert (report["delivered"], report["left"], report["dropped"]) == (OPERATIONS // 2, 0, {})
    await fleet.drain()
    assert fleet.figures() == Figures(OPERATIONS, lost=0, doubled=0, out_of_order=0, unexpected=0)
