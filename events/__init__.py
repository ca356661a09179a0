"""The wire: what a command looks like, how it reaches a broker, and the publisher that an LMS imports.

- The message: `commands` (what can be asked for), `vocabulary` (statuses and codes), `fields`, `times`, `envelope`
  (bytes to command and back), `signing`, `schemas` (JSON Schemas of the commands).
- What is told: `event_types` (the data of each event), `cloudevent` (event to bytes).
- The way to the broker: `broker_url` and `tls` (what a URL means), `connecting` with `redis_transport`,
  `amqp_transport` and `redis_server`, `sharding` (which queue).
- The publisher: `publisher` with `methods` (one for each command), `sender`, and `executor` (deadlines).
- `errors`: the root of every error of this project, and the errors of the wire.

This package imports nothing else of this project, so an LMS that publishes loads nothing of the worker. It is in
the one wheel of the project and cannot be installed alone.
"""
