"""The command line: a thin Typer app over the components. Heavy libraries are loaded by the command that needs them."""

from components.cli import guard, line, machine, workshop
from components.cli.shared import app
from components.core.boundary import boundary
from components.core.progress import show_logs
from components.core.system import collect_rarely, in_utf8

__all__ = ["app", "guard", "line", "machine", "main", "workshop"]


def main() -> None:
    """Run a command; what fails is one sentence on standard error and an exit status: docs/operating.md."""
    in_utf8("components.cli")
    collect_rarely()
    show_logs()
    with boundary():
        app(prog_name="loupe")  # also of `python -m`: by its name a shell asks for what may be typed next
