"""The user of this machine whose rights handlers have, where that is not the agent's own."""

import os
import pwd
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from htcgrid.spi import Rejected

_TRIAL = "import os, sys; os.listdir(sys.argv[1])"
_TRIAL_SECONDS = 30.0
_LARGEST = 2**32 - 2
"""The largest number of a user on Linux."""


@dataclass(frozen=True, slots=True)
class Account:
    """A user with its groups, as `subprocess` takes them."""

    name: str
    user: int
    group: int
    groups: tuple[int, ...]


def named(user: str) -> Account:
    """The account of this name or number; only root can give it to a process."""
    try:
        number = int(user)
    except ValueError:
        number = -1
    if number > _LARGEST:
        number = -1
    try:
        found = pwd.getpwuid(number) if number >= 0 else pwd.getpwnam(user)
    except KeyError:
        if number < 0:
            raise Rejected(
                f"user = {user!r}: there is no such user here. Name one of /etc/passwd, or write a number."
            ) from None
        account = Account(user, number, number, ())  # as in containers, which have few names
    else:
        groups = os.getgrouplist(found.pw_name, found.pw_gid)
        account = Account(found.pw_name, found.pw_uid, found.pw_gid, tuple(groups))
    if os.geteuid() != 0:
        raise Rejected(
            f"user = {user!r}: only root can start processes of another user. Run htcgrid as root, or leave `user` out."
        )
    return account


def check(account: Account, folder: Path) -> None:
    """Refuse an account that cannot run this Python, or read the folder of the code."""
    try:
        trial = subprocess.run(
            [sys.executable, "-P", "-I", "-c", _TRIAL, str(folder)],
            user=account.user,
            group=account.group,
            extra_groups=account.groups,
            capture_output=True,
            timeout=_TRIAL_SECONDS,
            check=False,
        )
    except PermissionError:
        raise Rejected(
            f"user = {account.name!r} may not run {sys.executable}. Install htcgrid where that user can read it, not in "
            "the home of another."
        ) from None
    if trial.returncode != 0:
        raise Rejected(
            f"user = {account.name!r} may not read the folder of the code, {str(folder)!r}. Give the user this right "
            "(`chmod o+rx`, for the folders above as well)."
        )
