"""Options that several commands take."""

from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias

import typer

from prefactor_worker.token import TOKEN_VARIABLE

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
ApiTokenFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        envvar="PREFACTOR_API_TOKEN_FILE",
        metavar="FILE",
        help=f"Holds the API's token; `run` reads it again when it changes. Else {TOKEN_VARIABLE} is taken.",
    ),
]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON instead.")]
