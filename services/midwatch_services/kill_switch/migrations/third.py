"""Alerts that are open, and outcomes of runs by the minute."""

revision = "kill_switch_3"
down_revision = "kill_switch_2"


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
