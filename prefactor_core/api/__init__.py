"""Delivery to the HTTP API: operations in, outcomes out.

``wire`` makes requests of operations, and ``packing`` says how many go into one. ``http`` sends them and,
with ``body``, reads the replies; ``replies`` says what they mean. ``circuit_breaker`` knows whether sending
makes sense, and ``endpoint`` what to tell people who wait for it. ``delivery`` puts them together as the
executor's batch handler; ``pipeline`` adds the executor.
"""
