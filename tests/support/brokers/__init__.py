"""Real brokers for tests: servers that a test may kill, a proxy that cuts wires, and fixtures for both.

The servers are synchronous on purpose: a session's fixtures outlive the event loop of any one test. In an
async test, put what waits (``start``, ``stop``, ``ctl``, ``wait_settled``, ...) into ``asyncio.to_thread``.
"""
