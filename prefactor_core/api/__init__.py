"""Delivery to the HTTP API: operations in, outcomes out.

``wire`` makes requests of operations, ``http`` sends them, ``replies`` says what an answer means,
``endpoint`` knows whether sending makes sense, and ``delivery`` puts them together as the executor's batch
handler.
"""
