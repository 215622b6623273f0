"""The two ways to a node: the daemon's socket, and this process on the hardware."""

import os

from migscaler.cli.answers import Answer
from migscaler.web.ports import Actor, Commands


class _As:
    """Gives commands in the name of the account that runs this process."""

    def __init__(self, commands: Commands) -> None:
        """Take who carries them out."""
        self._commands = commands
        self._actor = Actor(name=account(), trusted=True, uid=os.geteuid(), pid=os.getpid())

    def execute(self, name: str, arguments: Answer) -> Answer:
        """Carry out one command."""
        return self._commands.execute(name, arguments, self._actor)
