"""Pages of lists: how many entries a page has."""

from __future__ import annotations

from rxoutflow_server.domain.errors import Reason, Refusal

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 500


def page_size(wanted: int) -> int:
    """The size of a page: the default for 0, never more than the maximum (AIP-158).

    Raises:
        Refusal: FIELD_INVALID for a negative size.
    """
    if wanted < 0:
        raise Refusal(Reason.FIELD_INVALID, "page_size: must not be negative", field="page_size")
    return min(wanted or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
