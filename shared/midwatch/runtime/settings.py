"""Settings of the server side, from the environment: `MIDWATCH_<NAME>`, and `NATS_URL`."""

from decimal import Decimal
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AliasChoices, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from midwatch import locate


class Settings(BaseSettings):
    """Every setting has a default that is right on one machine."""

    model_config = SettingsConfigDict(env_prefix="MIDWATCH_", env_ignore_empty=True, extra="ignore", frozen=True)

    home: Path = Field(default_factory=locate.home, description="State folder")
    nats_url: str | None = Field(default=None, validation_alias=AliasChoices("NATS_URL", "nats_url"))
    nats_port: int = Field(default=4222, ge=0, le=65535, description="Port of the embedded server; 0 picks a free one")
    sync_interval: str = Field(default="always", description="When the embedded server syncs to disk")
    database_url: str | None = Field(
        default=None,
        description="SQLAlchemy address; `{service}` stands for the service's name. Default: SQLite in home",
    )
    http_host: str = "127.0.0.1"
    http_port: int = Field(default=8420, ge=0, le=65535, description="First port of the probes; 0 picks free ones")
    http: str | None = Field(
        default=None,
        description="Addresses at which `doctor` asks services that no `midwatch up` here runs, with commas between",
    )
    cases_webhook: str | None = Field(
        default=None, description="Address at which a help desk hears of cases; needs the secret"
    )
    cases_webhook_secret: SecretStr | None = Field(
        default=None,
        description="Signs what goes to the help desk and what comes from it: whsec_ and base64, or a text",
    )
    pager_file: Path | None = Field(
        default=None, description="Who is paged, and how. Default: pager.yaml in home; see `midwatch pager new`"
    )
    digest_at: str = Field(
        default="07:00",
        pattern=r"^([01]\d|2[0-3]):[0-5]\d$",
        description="When the digest of the day before is written, in its time zone",
    )
    digest_zone: str = Field(default="UTC", description="Time zone of the days that digests tell of: Europe/Berlin")
    digest_words: int = Field(default=2000, ge=100, le=2000, description="Words that a digest has at most")
    evals: Path = Field(default=Path("evals"), description="The folder of the eval sets, one inside for each agent")
    console_url: str | None = Field(
        default=None, pattern=r"^https?://", description="Where runs are shown on pages; what links in digests lead to"
    )
    console_host: str = Field(default="127.0.0.1", description="Where the console listens")
    console_port: int = Field(default=8742, ge=0, le=65535, description="Port of the console; 0 picks a free one")
    console_key: SecretStr | None = Field(
        default=None, min_length=32, description="Signs the console's sessions. Default: console.key in home"
    )
    console_proxies: str | None = Field(
        default=None, description="Addresses of proxies in front of the console that say who asks, with commas between"
    )
    console_requests: float = Field(
        default=20, gt=0, description="Requests a second that one signed-in person may make of the console"
    )
    oidc_issuer: str | None = Field(
        default=None, pattern=r"^https?://", description="OpenID Connect: who signs people in to the console"
    )
    oidc_client_id: str | None = Field(default=None, description="The console's name at the issuer")
    oidc_client_secret: SecretStr | None = Field(default=None, description="Its secret, where the issuer gave one")
    oidc_scope: str = Field(default="openid email profile", description="What the issuer is asked for")
    oidc_name_claim: str = Field(default="email", description="The claim by which a person is called")
    oidc_role_claim: str = Field(default="groups", description="The claim that says what a person may do")
    oidc_roles: str = Field(
        default="", description="Roles by that claim's values: midwatch-admins=admin,support=reviewer"
    )
    evidence_key_file: Path | None = Field(
        default=None, description="Key that signs checkpoints of the run log. Default: evidence/signing.key in home"
    )
    checkpoint_file: Path | None = Field(
        default=None, description="Where checkpoints are added to. Default: evidence/checkpoints.jsonl in home"
    )
    checkpoint_url: str | None = Field(default=None, description="Address to which each checkpoint is posted as well")
    otlp_endpoint: str | None = Field(
        default=None,
        validation_alias=AliasChoices("OTEL_EXPORTER_OTLP_ENDPOINT", "MIDWATCH_OTLP_ENDPOINT", "otlp_endpoint"),
    )
    log_format: Literal["auto", "json", "console"] = Field(
        default="auto", description="`auto`: for people on a terminal, else JSON"
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    replicas: int = Field(default=1, ge=1, le=5, description="Copies of each stream and bucket; 3 on a cluster")
    runs_max_age_days: float = Field(default=30, gt=0, description="How long MIDWATCH_RUNS keeps events")
    governance_max_age_days: float = Field(default=400, gt=0, description="How long MIDWATCH_GOVERNANCE keeps events")
    keep_days: float = Field(
        default=400, gt=0, description="How long the log keeps runs of agents without a card; at least 183"
    )
    dead_max_age_days: float = Field(default=90, gt=0, description="How long MIDWATCH_DEAD keeps dead letters")
    backup_days: float = Field(
        default=30,
        ge=0,
        description="How long you keep backups of databases and streams; the proof of an erasure says so",
    )
    fleet_budget_day: Decimal | None = Field(
        default=None, gt=0, description="US dollars that all live runs together may cost in a UTC day; unset for none"
    )
    fleet_trip: Literal["observe", "act"] = Field(
        default="observe", description="`act`: the fleet is halted once its day's budget is spent"
    )
    prices_file: Path | None = Field(
        default=None, description="Your own prices of models; default: prices.yaml in home, if there is one"
    )
    redaction_key_file: Path | None = Field(
        default=None, description="The key of reversible redaction. Default: redaction.key in home, if there is one"
    )
    runs_max_bytes: int = Field(default=-1, description="Size limit of MIDWATCH_RUNS in bytes; -1 for none")
    drills: bool = Field(default=True, description="`off`: no drill begins by itself, whatever the cards say")
    drill_nats_url: str | None = Field(
        default=None, description="Where a drill's own tickets flow; with shipped roles as the user `drill`"
    )

    @field_validator("digest_zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            return str(ZoneInfo(value).key)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("is no time zone, such as Europe/Berlin or UTC") from None

    @property
    def url(self) -> str:
        """Address of NATS that a command or service connects to."""
        return self.nats_url or str(locate.run_file(self.home).get("nats_url") or f"nats://127.0.0.1:{self.nats_port}")

    @property
    def drill_url(self) -> str:
        """Address of NATS at which a drill's instance speaks in its agent's name."""
        return self.drill_nats_url or self.url

    @property
    def pager_yaml(self) -> Path:
        """The file that says who is paged."""
        return self.pager_file or self.home / "pager.yaml"

    @property
    def prices_path(self) -> Path:
        """The file of the operator's own prices, which is there or not."""
        return self.prices_file or self.home / "prices.yaml"

    @property
    def redaction_key(self) -> Path:
        """The file of the key with which reversible rules encrypt, which is there or not."""
        return self.redaction_key_file or self.home / "redaction.key"

    @property
    def evidence_key(self) -> Path:
        """The file of the key that signs checkpoints."""
        return self.evidence_key_file or self.home / "evidence" / "signing.key"

    @property
    def checkpoints_path(self) -> Path:
        """The file of checkpoints outside the database."""
        return self.checkpoint_file or self.home / "evidence" / "checkpoints.jsonl"

    def database_for(self, service: str) -> str:
        """SQLAlchemy address of a service's database. By default each service has an SQLite file of its own, so that
        no writer waits for another."""
        if self.database_url:
            url = self.database_url.replace("{service}", service.replace("-", "_"))
            return url.replace("postgresql://", "postgresql+psycopg://", 1).replace(
                "postgres://", "postgresql+psycopg://", 1
            )
        return f"sqlite:///{(self.home / 'data' / (service.replace('-', '_') + '.db')).absolute()}"
