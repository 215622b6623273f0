"""Names the accounts of this host, for records that people read."""

import pwd

from migscaler.web.ports import Actor


def account_name(uid: int) -> str:
    """Return an account's name, `uid 1000` for one that the host does not know.

    Asks whatever the host's name service is, which may be another machine: not for an event loop.
    """
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def name_of(actor: Actor) -> str:
    """Return by what name a record tells who gave a command: the account's, where it has one."""
    return actor.name if actor.uid is None else account_name(actor.uid)
