"""What every broker transport shares: publishing, receiving, dead letters and the envelope.

``driver`` says what a transport has to provide; ``queue`` makes a ``Queue`` of it.
"""
