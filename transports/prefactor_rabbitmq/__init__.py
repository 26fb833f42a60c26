"""The transport for ``amqp://`` and ``amqps://``: RabbitMQ quorum queues."""
