"""The function that is called, and where it is, as error messages name them."""

from collections.abc import Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass

from htcgrid_aws.aws_errors import ErrorKind, translated_errors


@dataclass(frozen=True, slots=True)
class Target:
    """A function of AWS Lambda."""

    function: str
    qualifier: str = ""
    region: str = ""
    profile: str = ""
    endpoint: str = ""

    @property
    def who(self) -> str:
        """The function with its alias or version: `pricing:live`."""
        return f"{self.function}:{self.qualifier}" if self.qualifier else self.function

    @property
    def where(self) -> str:
        """The region, and the endpoint where it is not AWS's own."""
        return f"{self.region} at {self.endpoint}" if self.endpoint else self.region

    def translated_errors(self, begun: Collection[str] = ()) -> AbstractContextManager[None]:
        """Around calls to AWS; `begun` are the tasks that the call runs."""
        return translated_errors("", f"{self.who} in {self.where}", begun=begun, advice=self._advice())

    def _advice(self) -> dict[ErrorKind, str]:
        log_in = f"aws sso login --profile {self.profile}" if self.profile else "aws sso login"
        unreachable = (
            "Check `endpoint_url`, and that something listens there."
            if self.endpoint
            else f"Check the network, and that the region {self.region!r} exists and is enabled for this account."
        )
        return {
            ErrorKind.UNREACHABLE: unreachable,
            ErrorKind.THROTTLED: "If it lasts, lower `concurrency` or ask AWS for a higher quota.",
            ErrorKind.NOT_READY: "The function is not ready; `htcgrid status` shows its state.",
            ErrorKind.FAULT: "The handler may have run.",
            ErrorKind.MISSING: (
                "There is no such function, alias or version in this region: check `region`, `[function] name` and "
                '`qualifier` ("$LATEST" where there is no alias), or run `htcgrid deploy`.'
            ),
            ErrorKind.DENIED: "Allow the caller `{action}`, or choose another `profile`.",
            ErrorKind.EXPIRED: (
                f"The credentials have expired: log in again ({log_in}), then start again; tasks that did not run are "
                "still queued."
            ),
            ErrorKind.UNKNOWN_CREDENTIALS: (
                "AWS does not accept these credentials here: check the profile, the clock of this machine, and that the "
                f"region {self.region!r} is right and enabled for the account."
            ),
        }
