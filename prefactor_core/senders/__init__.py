"""What sends the operations of a session: from this process to the API, or through a broker to workers."""
