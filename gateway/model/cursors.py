"""Cursors of lists: the identity of the last item of a page, signed, so that what comes back is what was given out.

The pages of a list that changes meanwhile have no gap and no double: what comes after the item is asked for, not a
number. Source: MCP 2025-11-25, pagination.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

from gateway.errors import InvalidParams
from gateway.model.keyring import Keyring, SealBroken

_PURPOSE = "cursor"


class Cursors:
    """Make cursors and read them back, at any replica."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    def after(self, identity: str) -> str:
        """The cursor of what comes after an item."""
        return base64.urlsafe_b64encode(self._keyring.sign(_PURPOSE, identity.encode())).decode()

    def read(self, cursor: Any) -> str | None:
        """The identity that a cursor stands for, None for the beginning. Raises InvalidParams."""
        if cursor is None or cursor == "":
            return None
        try:
            signed = base64.b64decode(cursor, altchars=b"-_", validate=True)
            return self._keyring.verify(_PURPOSE, signed).decode()
        except (TypeError, ValueError, binascii.Error, SealBroken):
            raise InvalidParams("This cursor was not given out here; begin again without one.", "cursor") from None
