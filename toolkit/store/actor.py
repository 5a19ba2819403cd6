"""Who acts: a person who signed in, or a process that is trusted."""

import os
import pwd
from dataclasses import dataclass

from toolkit.core import words
from toolkit.core.policy import Role


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts: the name that the audit log shows, and the rights that the services check.

    Args:
        name: an operator's e-mail, for somebody who has signed in; else that of a process trusted as the platform,
            see `trusted`.
        role: what the actor may do.
        org_id: the one organisation of an org admin or analyst; None is all.
    """

    name: str
    role: Role
    org_id: str | None = None

    @classmethod
    def trusted(cls, name: str | None = None) -> "Actor":
        """Return the actor of a process that holds the store's credentials itself (CLI, notebook).

        Args:
            name: in whose name it acts, as it says; nobody checks that, so the actor is `cli:<os user> as <name>`,
                and never the person who has this e-mail.

        Raises:
            InvalidInput: the name is empty, too long, or holds characters that cannot be seen.
        """
        process = f"cli:{_os_user()}"
        if name is not None:
            process += f" as {words.check_line(name, 'name of who acts', words.EMAIL)}"
        return cls(process, Role.PLATFORM_ADMIN)

    def is_named(self, email: str) -> bool:
        """Whether this is the person with the e-mail, signed in or by a process's word."""
        return self.name == email or self.name.endswith(f" as {email}")


def _os_user() -> str:
    # Not by `getpass.getuser`: it believes USER and LOGNAME, which anybody may set.
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's user may have no name
        return str(os.getuid())


SYSTEM = Actor("system", Role.PLATFORM_ADMIN)
"""The actor of what no person asked for: set-up, drain, sweeps."""
