"""Delivery to the HTTP API: operations in, outcomes out.

``wire`` makes requests of operations, ``http`` sends them, ``replies`` says what an answer means,
``circuit_breaker`` knows whether sending makes sense, ``delivery`` puts them together as the executor's batch
handler, and ``pipeline`` adds the executor.
"""
