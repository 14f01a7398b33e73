"""What a person may do: each role may do all that the ones before it may. Pure."""

from collections.abc import Iterable, Mapping
from enum import StrEnum

from midwatch.errors import Misconfigured


class Role(StrEnum):
    """Viewers look, reviewers judge runs, operators act on agents, admins do the rest."""

    VIEWER = "viewer"
    REVIEWER = "reviewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    def may(self, needed: "Role") -> bool:
        """Whether it includes `needed`."""
        return _ORDER.index(self) >= _ORDER.index(needed)


_ORDER = tuple(Role)


class BadRoles(Misconfigured):
    """MIDWATCH_OIDC_ROLES: {part!r} gives no role: write pairs such as midwatch-admins=admin,support=reviewer; the
    roles are viewer, reviewer, operator and admin."""


def parse(text: str) -> dict[str, Role]:
    """The roles by the claim's values. Raises BadRoles."""
    found = {}
    for part in filter(None, (one.strip() for one in text.split(","))):
        value, is_pair, role = (one.strip() for one in part.rpartition("="))
        if not (is_pair and value and role in _ORDER):
            raise BadRoles(part=part)
        found[value] = Role(role)
    return found


def given(claim: object, roles: Mapping[str, Role]) -> Role | None:
    """The highest role that a claim gives, a text or a list of them; None where it gives none."""
    values: Iterable[object] = claim if isinstance(claim, list) else [claim]
    found = [roles[one] for one in values if isinstance(one, str) and one in roles]
    return max(found, key=_ORDER.index, default=None)
