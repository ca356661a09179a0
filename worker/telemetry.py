"""Starts the traces of a process, if the standard variables of OpenTelemetry ask for them."""

import os
from collections.abc import Mapping

from worker import extras, tracing
from worker.logs import get_logger

logger = get_logger(__name__)


def start(process: str, messaging_system: str) -> None:
    """Send spans from now on, if OpenTelemetry's variables say where to. If that cannot be, a warning says why.

    Parameters:
        process: what this process is, such as `consume`.
        messaging_system: the broker's, as OpenTelemetry calls it.
    """
    if not is_wanted(os.environ):
        return
    if reason := _why_not(os.environ):
        logger.warning("traces are off", reason=reason)
        return
    from worker import otel  # its packages are an extra

    tracing.send_with(otel.recorder(process, messaging_system))


def is_wanted(environment: Mapping[str, str]) -> bool:
    """Return whether OpenTelemetry's variables ask for traces: a collector is named, or OTLP is.

    Example:
        >>> is_wanted({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"})
        True
        >>> is_wanted({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_TRACES_EXPORTER": "none"})
        False
    """
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    exporter = environment.get("OTEL_TRACES_EXPORTER")
    if exporter:
        return exporter != "none"
    return any(
        environment.get(name)
        for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    )


def _why_not(environment: Mapping[str, str]) -> str | None:
    if absent := extras.missing(extras.OTEL):
        missing = ", ".join(absent)
        return f"they need the extra [otel] ({missing} missing): {extras.how_to_install(extras.OTEL)}"
    allowed = {"OTEL_TRACES_EXPORTER": "otlp"} | dict.fromkeys(
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"), "http/protobuf"
    )
    for name, value in allowed.items():
        if environment.get(name) not in (None, "", value):
            return f"{name} must be {value} or unset: nothing else is sent"
    return None
