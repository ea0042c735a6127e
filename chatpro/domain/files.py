"""Names for files that people take home: made from titles, and safe on every system that may unpack them.

A title is a stranger's text. As a path it leads out of the folder, hides its ending behind a direction mark, names a device on
Windows, or fills the disk of whoever unpacks it with a name no program can open again.
"""

from __future__ import annotations

import unicodedata

NAME_BYTES = 120
"""UTF-8 bytes of a name without its ending. Systems allow 255; folder, date and number need some, and Windows counts the whole path."""

_DEVICES = frozenset({"con", "prn", "aux", "nul", "conin$", "conout$", "clock$"} | {f"{port}{n}" for port in ("com", "lpt") for n in "0123456789¹²³"})
"""What Windows takes for a device, with any ending behind it."""
_KEPT = frozenset(" -_,'()+=&")
"""Signs besides letters, their marks and digits that are ordinary in a name everywhere."""


def safe_name(title: str, otherwise: str = "chat") -> str:
    """A title as a file's name, without an ending: letters of any script, digits and plain signs; everything else is a space.

    No path, no ending of its own, no leading or trailing sign, no device, at most NAME_BYTES. `otherwise` where nothing is left.
    """
    composed = unicodedata.normalize("NFC", title)
    kept = (sign if unicodedata.category(sign)[0] in "LMN" or sign in _KEPT else "" if unicodedata.category(sign) == "Cf" else " " for sign in composed)
    name = " ".join("".join(kept).split()).strip(" -_,'+=&")
    # Whole characters only, and no mark without its letter at the end of a cut.
    name = name.encode()[:NAME_BYTES].decode(errors="ignore").strip()
    if name.split(" ")[0].casefold() in _DEVICES:
        name = f"_{name}"
    return name or otherwise


class Names:
    """Names of one folder: never the same twice, also where capitals, or how an accent is written, make no difference."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def unique(self, name: str) -> str:
        """The name, or the name with a number behind it."""
        found, number = name, 1
        while (key := unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", found).casefold())) in self._taken:
            number += 1
            found = f"{name} ({number})"
        self._taken.add(key)
        return found
