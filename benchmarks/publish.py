"""A driver that plays the LMS: publishes the work through `events.publisher` on one connection."""

import argparse
from functools import partial

from benchmarks import publishing
from benchmarks.workload import Step
from events.publisher import Publisher

SOURCE = "/lms/benchmark"


def main() -> None:
    """Publish until the end of standard input."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--broker-url", required=True)
    parser.add_argument("--shards", type=int, default=1)
    options = parser.parse_args()
    with Publisher(options.broker_url, source=SOURCE, shards=options.shards) as publisher:
        publishing.serve(partial(publish, publisher))


def publish(publisher: Publisher, step: Step) -> str:
    """Publish one command and return its id."""
    user_id = str(step.learner)
    if step.to_status is None:
        return publisher.create_attempt(exam_id=step.exam, user_id=user_id, taking_as_proctored=True)
    return publisher.update_status(exam_id=step.exam, user_id=user_id, to_status=step.to_status)


if __name__ == "__main__":
    main()
