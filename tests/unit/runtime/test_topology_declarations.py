"""What topology.py declares, against the contract's own words."""

from nats.js.api import AckPolicy, DiscardPolicy, StorageType

from midwatch.runtime import topology
from midwatch.runtime.settings import Settings

STREAMS = {stream.name: stream.config(Settings()) for stream in topology.STREAMS}
BUCKETS = {bucket.name: bucket.config(Settings()) for bucket in topology.BUCKETS}


def test_each_noun_of_the_contract_is_kept_by_its_stream() -> None:
    assert {name: config.subjects for name, config in STREAMS.items()} == {
        "MIDWATCH_RUNS": ["midwatch.run.>"],
        "MIDWATCH_GOVERNANCE": [
            "midwatch.alert.>", "midwatch.switch.>", "midwatch.review.>", "midwatch.eval.>", "midwatch.rollout.>",
            "midwatch.case.>", "midwatch.digest.>", "midwatch.evidence.>", "midwatch.hold.>", "midwatch.erasure.>",
        ],
        "MIDWATCH_PRESENCE": ["midwatch.presence.>"],
        "MIDWATCH_DEAD": ["midwatch.dead.>"],
    }  # fmt: skip


def test_runs_and_dead_letters_may_be_published_in_atomic_batches() -> None:
    assert [name for name, config in STREAMS.items() if config.allow_atomic] == ["MIDWATCH_RUNS", "MIDWATCH_DEAD"]


def test_a_repeat_within_two_minutes_is_the_servers_to_recognise() -> None:
    assert {config.duplicate_window for config in STREAMS.values()} == {120}


def test_presence_is_in_memory_and_keeps_the_last_word_of_each_instance() -> None:
    presence = STREAMS["MIDWATCH_PRESENCE"]
    assert (presence.storage, presence.max_msgs_per_subject, presence.max_age) == (StorageType.MEMORY, 1, 3600)
    others = [config.storage for name, config in STREAMS.items() if name != "MIDWATCH_PRESENCE"]
    assert set(others) == {StorageType.FILE}


def test_writes_of_switch_cards_and_routes_are_republished_as_the_contract_says() -> None:
    republished = {name: (c.republish.src, c.republish.dest) for name, c in BUCKETS.items() if c.republish}
    assert republished == {
        "MIDWATCH_SWITCH": ("$KV.MIDWATCH_SWITCH.>", "midwatch.control.>"),
        "MIDWATCH_AGENTS": ("$KV.MIDWATCH_AGENTS.>", "midwatch.control.card.>"),
        "MIDWATCH_ROUTES": ("$KV.MIDWATCH_ROUTES.>", "midwatch.control.route.>"),
    }


def test_switch_and_cards_keep_their_last_64_values_and_never_expire() -> None:
    for name in ("MIDWATCH_SWITCH", "MIDWATCH_AGENTS"):
        assert (BUCKETS[name].max_msgs_per_subject, BUCKETS[name].max_age) == (64, 0)


def test_a_case_is_opened_once() -> None:
    cases = BUCKETS["MIDWATCH_CASES"]
    assert (cases.max_msgs_per_subject, cases.discard, cases.discard_new_per_subject) == (1, DiscardPolicy.NEW, True)
    assert not cases.allow_rollup_hdrs, "a rollup would replace the first opener"


def test_everything_can_be_read_by_direct_get() -> None:
    assert all(config.allow_direct for config in (*STREAMS.values(), *BUCKETS.values()))


def test_retention_and_replicas_are_settings() -> None:
    settings = Settings(replicas=3, runs_max_age_days=2, runs_max_bytes=5000)
    runs = topology.STREAMS[0].config(settings)
    assert (runs.name, runs.num_replicas, runs.max_age, runs.max_bytes) == ("MIDWATCH_RUNS", 3, 172_800, 5000)
    assert {bucket.config(settings).num_replicas for bucket in topology.BUCKETS} == {3}


def test_the_consumers_are_those_of_the_services() -> None:
    assert {(consumer.stream, consumer.name) for consumer in topology.CONSUMERS} == {
        ("MIDWATCH_RUNS", "logger"),
        ("MIDWATCH_RUNS", "cost-watchdog"),
        ("MIDWATCH_RUNS", "reviewer-sampler"),
        ("MIDWATCH_GOVERNANCE", "reviewer-sampler-governance"),
        ("MIDWATCH_GOVERNANCE", "reviewer-sampler-verdicts"),
        ("MIDWATCH_RUNS", "kill-switch"),
        ("MIDWATCH_GOVERNANCE", "logger-governance"),
        ("KV_MIDWATCH_SWITCH", "kill-switch-writes"),
        ("KV_MIDWATCH_CASES", "kill-switch-cases"),
        ("MIDWATCH_GOVERNANCE", "kill-switch-governance"),
        ("MIDWATCH_GOVERNANCE", "pager"),
        ("MIDWATCH_GOVERNANCE", "logger-erasure"),
        ("MIDWATCH_GOVERNANCE", "cost-watchdog-erasure"),
        ("MIDWATCH_GOVERNANCE", "kill-switch-erasure"),
        ("MIDWATCH_GOVERNANCE", "pager-erasure"),
        ("MIDWATCH_GOVERNANCE", "reviewer-sampler-erasure"),
        ("MIDWATCH_GOVERNANCE", "drift-erasure"),
        ("MIDWATCH_GOVERNANCE", "digest-erasure"),
    }


def test_the_pager_hears_of_alerts_and_digests_alone() -> None:
    (pager,) = [consumer for consumer in topology.CONSUMERS if consumer.name == "pager"]
    assert pager.config().filter_subjects == [
        "midwatch.alert.*.raised", "midwatch.alert.*.acknowledged", "midwatch.alert.*.resolved",
        "midwatch.digest.*.written",
    ]  # fmt: skip


def test_no_consumer_drops_a_message_after_some_attempts() -> None:
    for consumer in topology.CONSUMERS:
        config = consumer.config()
        assert (config.max_deliver, config.ack_policy, config.ack_wait) == (-1, AckPolicy.EXPLICIT, 30)
