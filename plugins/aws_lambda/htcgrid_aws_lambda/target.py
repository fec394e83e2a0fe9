from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """What is called, and where: the words that every error message needs."""

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
