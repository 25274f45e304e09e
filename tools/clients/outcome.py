"""How a capability that was tried ends: it holds, it does not, or the client offers no such thing."""

import traceback
from collections.abc import Callable

FAILED = "**no**"
NOT_OFFERED = "–"


class Wrong(Exception):
    """What was seen is not what must be; a sentence for the table."""


class NotOffered(Exception):
    """The client has no such thing."""


def expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Wrong(otherwise)


def cell(capability: Callable[[], str | None]) -> str:
    """What the table says of a capability of a client."""
    try:
        return "yes" + (capability() or "")
    except NotOffered:
        return NOT_OFFERED
    except Wrong as error:
        return f"{FAILED}: {error}"
    except Exception as error:  # whatever the client says
        if not isinstance(error, RuntimeError):
            traceback.print_exc()
        return f"{FAILED}: {str(error).strip().splitlines()[-1][:200] if str(error) else type(error).__name__}"


def count_failed(results: dict[str, dict[str, str]]) -> tuple[int, int]:
    """How many cells hold, and how many don't."""
    cells = [text for row in results.values() for text in row.values() if text != NOT_OFFERED]
    failed = sum(text.startswith(FAILED) for text in cells)
    return len(cells) - failed, failed
