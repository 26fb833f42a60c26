"""The transport to Redis Streams: a server, a cluster or one behind sentinels."""
