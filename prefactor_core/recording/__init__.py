"""Recording: what an agent does becomes operations, at the call, in any thread, without waiting.

Both faces of the SDK stand on it; what becomes of the operations is not its business.
"""
