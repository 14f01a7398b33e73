"""The text of a new pager.yaml, which is accepted as it is."""

STARTER = """\
# Who is told of alerts, and how. `midwatch pager check` reads this file, `midwatch test-page` really sends through
# every channel of it. The pager follows a change within a few seconds.

# Ways to reach people. Secrets come from the environment of the pager as ${NAME}; they are never logged or shown.
channels:
  ann-phone: {apprise: "${ANN_PHONE_URL}"}          # any address of https://appriseit.com/services
  team-chat: {apprise: "${TEAM_CHAT_URL}"}          # for instance slack://…, msteams://…, pagerduty://…, mailto://…
# desk: {webhook: https://desk.example/midwatch, secret: "${DESK_SECRET}"}    # signed by the Standard Webhooks scheme
# alertmanager: {alertmanager: http://alertmanager:9093}

# People, each with the channels that reach them.
contacts:
  ann: [ann-phone, team-chat]
  support-lead: team-chat

# Escalation chains. Each step has so long to acknowledge (`midwatch ack ALERT`), then the next is told; the last is
# told again, at twice the time each round. A route takes what it names (severity, agents, rules), the first that fits;
# a scope card may name a route or a contact for its agent (`alerts: {page: on-call, ticket: support-leads}`).
routes:
  on-call:
    steps:
      - {tell: ann, within: 10m}
      - {tell: [ann, support-lead], within: 15m}
  support-leads:
    severity: ticket
    steps:
      - {tell: support-lead, within: 24h}
# money: {rules: [budget_run, budget_ticket, budget_fleet_day], steps: [{tell: ann, within: 5m}]}

default: on-call                    # what no other route takes

# Hours in which `ticket` alerts wait; pages do not. `days` are those on which they begin. A route may have its own.
# quiet_hours: {hours: 22:00-07:00, zone: Europe/Berlin, days: [mon, tue, wed, thu, fri]}

# Who reads the digest of the day before: contacts. Under `to` those who read of the whole shop, under `agents` those
# who read of one agent. Mail gets all of it, a chat its beginning. Without this section nobody gets one.
# digest: {to: support-lead, agents: {refund-desk: [support-lead]}}

# Who reads each Monday what people corrected in the week before: under `to` of every agent, under `agents` of one.
# corrections: {agents: {refund-desk: [support-lead]}}

# The rest may be left out; these are the defaults.
# groups: {interval: 5m, calm: 1m, acknowledged_for: 4h}
#   interval: what joins a cause later is told in one message so long after the last
#   calm: without an open alert for so long, a cause is over, and those who were told are told so
#   acknowledged_for: an alert that joins an acknowledged cause later than that pages anew
# repeat: {longest: 4h}             # between two rounds of a chain's last step
# delivery: {within: 15s, give_up_after: 6h}
# watchdog: {behind: 30s}           # events that cost-watchdog leaves unread for longer page
"""
