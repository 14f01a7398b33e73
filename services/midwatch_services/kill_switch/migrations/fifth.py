"""Drills and their results."""

revision = "kill_switch_5"
down_revision = "kill_switch_4"


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
