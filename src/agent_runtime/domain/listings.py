"""The answers of MCP servers that were asked for their tools."""

from collections.abc import Mapping

from agent_runtime.domain.errors import ServerUnavailableError
from agent_runtime.domain.tools import JudgedDefinition
from agent_runtime.domain.values import Value


class ListingFailure(Value):
    """The reason why a server could not list its tools; the other fields are as in `ServerUnavailableError`."""

    reason: str
    may_pass: bool = False
    retry_after_s: float = 0.0
    exit_mark: str | None = None

    @classmethod
    def of_error(cls, error: ServerUnavailableError) -> "ListingFailure":
        """Return the failure that an error tells of."""
        return cls(
            reason=error.reason,
            may_pass=error.may_pass,
            retry_after_s=error.retry_after_s,
            exit_mark=error.exit_mark,
        )

    def make_outage(self, server_id: str) -> ServerUnavailableError | None:
        """Return the error of a server with this id; None if the failure does not pass by itself."""
        if not self.may_pass:
            return None
        return ServerUnavailableError(
            server_id, self.reason, may_pass=True, retry_after_s=self.retry_after_s, exit_mark=self.exit_mark
        )


class Listing(Value):
    """The tools of a server as it listed them when it was asked last, or the reason why it could not.

    `judged`: the definitions with the verdicts on their schemas. `left_out`: by name, why each other tool cannot be
    used. `unstable`: by name, how the definition of a tool differs from one list to the next. `compared`: two lists
    were compared to find out.
    """

    judged: tuple[JudgedDefinition, ...] = ()
    left_out: Mapping[str, str] = {}
    unstable: Mapping[str, str] = {}
    compared: bool = False
    failure: ListingFailure | None = None
