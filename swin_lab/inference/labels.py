"""Names of classes that the images of a set bring along, stored once each."""

UNKNOWN = -1
"""Takes the place of the label of an image whose class is not known."""


class LabelNames:
    """Numbers names in the order in which they appear."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._codes: dict[str, int] = {}

    def code(self, name: str | None) -> int:
        """Returns the number of a name, or UNKNOWN for None."""
        if name is None:
            return UNKNOWN
        code = self._codes.setdefault(name, len(self.names))
        if code == len(self.names):
            self.names.append(name)
        return code
