"""The HTTP adapter for the LMS's credit and instructor services (calls: docs/contract.md)."""

from collections.abc import Mapping
from http import HTTPStatus
from urllib.parse import quote

from worker.lms.credentials import Anonymous, Credentials
from worker.lms.http_answers import Answer, course_name, raise_unless_done
from worker.lms.http_client import Call, HttpClient, Network
from worker.lms.ports import CallKey, CreditRequirement, Deadline, Origin


class HttpLms:
    """A client of both services. Many threads may call it at the same time.

    Certificates are checked against the system's store; `SSL_CERT_FILE` and `SSL_CERT_DIR` name another one.

    Every call raises `Unavailable` or `Misconfigured` when a retry may help, and `Refused` when it will not.
    """

    def __init__(
        self, base_url: str, credentials: Credentials | None = None, network: Network | None = None
    ) -> None:
        """Check the URL. The first call connects.

        Parameters:
            base_url: the URL before the paths of the services. It may have a path of its own.
            credentials: show the LMS who calls. The default is to call without a token.
            network: certificates, proxy and headers. The default is the system's certificates and nothing else.

        Raises:
            ConfigurationError: the URL cannot work.
        """
        self._credentials = credentials or Anonymous()
        self._network = network or Network()
        self._client = HttpClient(base_url, self._credentials, self._network)

    def set_status(
        self, requirement: CreditRequirement, status: str, key: CallKey, deadline: Deadline
    ) -> None:
        """Set the requirement to `status`: satisfied, submitted, failed or declined."""
        body = {**_requirement_body(requirement), "status": status}
        self.post("/credit/set-requirement-status", body, key, deadline)

    def remove(self, requirement: CreditRequirement, key: CallKey, deadline: Deadline) -> None:
        """Remove the requirement. The LMS also accepts the removal of one that does not exist."""
        self.post("/credit/remove-requirement-status", _requirement_body(requirement), key, deadline)

    def course_name(
        self, user_id: str, course_id: str, origin: Origin | None, deadline: Deadline
    ) -> str | None:
        """Return the course's name, or None when the LMS answers 404 or with no name."""
        asked = {"user_id": user_id, "course_id": course_id}
        call = Call("GET", "/credit/state", _origin_headers(origin), params=asked)
        answer, token = self._client.send(call, deadline)
        if answer.status == HTTPStatus.NOT_FOUND:
            return None
        self._raise_unless_done(answer, call, token)
        return course_name(answer.body)

    def delete_student_attempt(
        self,
        username: str,
        course_id: str,
        content_id: str,
        requested_by: str | None,
        key: CallKey,
        deadline: Deadline,
    ) -> None:
        """Reset the learner's work on one exam."""
        body = {
            "username": username,
            "course_id": course_id,
            "content_id": content_id,
            "requested_by": requested_by,
        }
        self.post("/instructor/delete-student-attempt", body, key, deadline)

    def close(self) -> None:
        """Close the connections. No call may be running."""
        self._client.close()

    def post(self, path: str, body: Mapping[str, str | None], key: CallKey, deadline: Deadline) -> None:
        """Make a call that changes something. The adapter of another service of the LMS makes its calls with this.

        Parameters:
            path: below the base URL.
            body: the JSON object of the contract.
            key: sent in the headers, so that the LMS recognises a repeated or a late call.
            deadline: of the whole call.

        Raises:
            Transient: another try may help.
            Permanent: it will not.
        """
        headers = {
            "Idempotency-Key": str(key.effect_id),
            "Invigilator-Sequence": str(key.sequence),
            **_origin_headers(key.origin),
        }
        call = Call("POST", path, headers, json=body)
        answer, token = self._client.send(call, deadline)
        # The reset carries a username, and an answer may repeat it.
        self._raise_unless_done(answer, call, token, body.get("username"))

    def _raise_unless_done(
        self, answer: Answer, call: Call, token: str | None, username: str | None = None
    ) -> None:
        secrets = [one for one in (token, *self._network.headers.values()) if one]
        raise_unless_done(answer, str(call), self._credentials.setting, secrets, username)


def _origin_headers(origin: Origin | None) -> dict[str, str]:
    """Name the command, the attempt and the trace of a call.

    Any text can be in an id, so each part is percent-encoded.
    """
    if origin is None:
        return {}
    traced = {} if origin.traceparent is None else {"traceparent": origin.traceparent}
    return {
        **traced,
        "Invigilator-Command": f"{quote(origin.source, safe='/')} {quote(origin.command_id, safe='')}",
        "Invigilator-Attempt": quote(origin.attempt_code, safe=""),
    }


def _requirement_body(requirement: CreditRequirement) -> dict[str, str]:
    return {
        "user_id": requirement.user_id,
        "course_id": requirement.course_id,
        "req_namespace": requirement.namespace,
        "req_name": requirement.name,
    }
