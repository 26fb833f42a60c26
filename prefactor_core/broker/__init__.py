"""What every broker transport shares: publishing, receiving, dead letters and the envelope.

``driver`` says what a transport has to provide; ``queue`` makes a ``Queue`` of it.

- Publishing: ``publisher`` and its ``buffer``.
- Consuming: ``consumer``, ``assignment`` (the partitions that it owns), ``reader`` and ``prefetch`` (what it
  reads of them), ``isolation`` (operations that may crash workers).
- Operators: ``dead_letters``, and ``answers`` about a replay.
- All: ``envelope`` and ``options``. For drivers: ``ownership``.
"""
