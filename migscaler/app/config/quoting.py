"""What of a value a finding may quote: findings go to the log, the command line and the API.

People paste a key where its path belongs, or a password into an address.
"""

_LONGEST_PART = 255
"""Bytes between two slashes (NAME_MAX of limits.h): nothing longer is the name of a file."""
_LONGEST_QUOTED = 255


def may_be_path(text: str) -> bool:
    """Say whether a text can be the path of a file, and is not what should stand in one."""
    if "\n" in text or "\r" in text or "-----" in text:
        return False
    return all(len(part.encode()) <= _LONGEST_PART for part in text.split("/"))


def holds_private_key(text: str) -> bool:
    """Say whether a text has a private key in it, as PEM writes them (RFC 7468)."""
    return "PRIVATE KEY-----" in text


def quoted_path(text: str) -> str:
    """Return a path as a finding shows it; not one that is longer than people write."""
    return repr(text) if len(text) <= _LONGEST_QUOTED else "the path"


def quoted_address(text: str) -> str:
    """Return an address as a finding shows it; not one that may hold a password or a token."""
    may_hold = "@" in text or "?" in text or "#" in text or len(text) > _LONGEST_QUOTED
    return "the address" if may_hold else repr(text)
