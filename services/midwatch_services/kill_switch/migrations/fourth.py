"""What a halt stopped, and when its first case reached the fallback."""

revision = "kill_switch_4"
down_revision = "kill_switch_3"


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
