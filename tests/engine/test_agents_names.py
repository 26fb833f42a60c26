"""The agents whose operations a worker sends are named in its requests."""

from dataclasses import replace

from prefactor_core.api.replies import Reply
from prefactor_core.operations import SDK_HEADER, Operation
from tests.engine.setups import carried_out
from tests.engine.virtual import virtual
from tests.support.bench import make_bench, running
from tests.support.fake_api import FakeApi
from tests.support.operations import quality


class NamedApi(FakeApi):
    """Notes in whose name requests come."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str | None] = []

    async def post(self, path: str, body: bytes, sdk_header: str | None = None) -> Reply:
        self.names.append(sdk_header)
        return await super().post(path, body, sdk_header)


def of(operation: Operation, header: str) -> Operation:
    return replace(operation, metadata={SDK_HEADER: header})


@virtual
async def test_each_entry_once_in_the_order_of_the_operations() -> None:
    api = NamedApi()
    api.instances.update(a="active", b="active")
    bench = make_bench(api)
    async with running(bench):
        await bench.put(
            of(quality("a", 1), "prefactor-langchain@0.3.0 prefactor-core@1.0.0"),
            of(quality("b", 1), "prefactor-core@1.0.0"),
            of(quality("b", 2), "prefactor-core@1.1.0"),
        )
        await bench.settle()
    assert api.names == ["prefactor-langchain@0.3.0 prefactor-core@1.0.0 prefactor-core@1.1.0"]


@virtual
async def test_operations_of_this_process_leave_the_name_to_it() -> None:
    api = NamedApi()
    api.instances.update(a="active")
    await carried_out(api, [quality("a", 1)])
    assert api.names == [None]
