"""What docs/rules.md and docs/contract.md say, for models and audits that use no line of the product."""

from collections.abc import Mapping
from typing import Any

CREDIT = {
    "verified": "satisfied",
    "submitted": "submitted",
    "declined": "failed",
    "rejected": "failed",
    "error": "failed",
    "not_reviewed": "failed",
}
"""By the status that an attempt has reached, what the credit service is told."""

DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "courses": {"name": None, "provider": None, "gives_credit": True},
    "exams": {"is_proctored": True, "is_practice_exam": False, "is_active": True, "time_limit_mins": None},
    "learners": {"full_name": None, "language": None, "time_zone": None},
}
"""By the table, what is known of a new row unless the sender says it."""
