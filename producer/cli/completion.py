"""`askq completion`: the completion script of a shell."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion_command(*, shell: str) -> int:
    """Print the completion script of SHELL. For bash: `eval "$(askq completion bash)"`."""
    from producer.cli import cli

    made = get_completion_class(shell)
    assert made is not None, "click knows the shells of the choice"
    click.echo(made(cli, {}, "askq", "_ASKQ_COMPLETE").source())
    return 0
