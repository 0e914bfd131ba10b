"""What a check of the machine has found."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

State = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """Contains the result of one check."""

    check: str
    """What was checked."""
    found: str
    state: State = "ok"
    advice: str = ""
    """What to do, unless the state is ok."""

    def as_dict(self) -> dict[str, Any]:
        """Returns plain Python."""
        return asdict(self)
