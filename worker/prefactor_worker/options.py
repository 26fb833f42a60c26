"""Options that several commands take."""

from typing import Annotated, Any, Final, TypeAlias

import typer

TRANSPORT_VARIABLE: Final = "PREFACTOR_TRANSPORT_URL"
API_URL_VARIABLE: Final = "PREFACTOR_API_URL"

_TRANSPORT: Final[Any] = typer.Option(
    "--transport", envvar=TRANSPORT_VARIABLE, metavar="URL", help="The broker: redis://... or amqp://..."
)
_API_URL: Final[Any] = typer.Option(
    "--api-url", envvar=API_URL_VARIABLE, metavar="URL", help="Where operations are posted."
)

Transport: TypeAlias = Annotated[str, _TRANSPORT]
TransportIfAny: TypeAlias = Annotated[str | None, _TRANSPORT]
ApiUrl: TypeAlias = Annotated[str, _API_URL]
ApiUrlIfAny: TypeAlias = Annotated[str | None, _API_URL]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON instead.")]
