"""What integrations (adaptors) share."""

import logging

logger = logging.getLogger("prefactor_core")


def warn_missing_adaptor_config(instance_id: str, adaptor_name: str, create_client_call: str) -> None:
    """Log that an instance is used by an integration that its client was not made for.

    The integration's spans then lack their schemas, and its name is missing from the SDK header.

    Args:
        instance_id: The instance.
        adaptor_name: Name of the integration.
        create_client_call: The call that makes a client for it, to be shown to the user.
    """
    logger.warning(
        "instance %s was created by a client that is not configured for %s: create the client with %s",
        instance_id,
        adaptor_name,
        create_client_call,
    )
