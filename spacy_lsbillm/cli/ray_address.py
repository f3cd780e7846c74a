"""The option --ray of the commands that a Ray cluster can do."""

from typing import Annotated

from typer import Option
from typer.core import TyperCommand

ANY_RAY = "auto"
RayOption = Annotated[
    str | None,
    Option(
        "--ray",
        metavar="[ADDRESS]",
        help="Use the Ray cluster at ADDRESS (HOST:PORT), or without an address the one this machine belongs to",
    ),
]


class OptionalAddress(TyperCommand):
    """Takes --ray with and without an address."""

    def parse_args(self, ctx, args):  # type: ignore[no-untyped-def]
        args = list(args)
        for i, argument in enumerate(args):
            if argument == "--ray" and (i + 1 == len(args) or args[i + 1].startswith("-")):
                args[i] = f"--ray={ANY_RAY}"
        return super().parse_args(ctx, args)
