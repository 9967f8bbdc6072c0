"""A call's arguments as the audit may keep them: without what may be a secret, by a field's name or a text's form."""

from __future__ import annotations

import re
from typing import Any

from gateway.model.redaction import REDACTED

_SECRET_NAME = re.compile(
    r"key|token|secret|passw|signature|auth|credential|bearer|cookie|session|\bpin\b|\bcvv\b", re.I
)
_SECRET_TEXT = re.compile(
    r"(?i:bearer|basic) [\w.~+/=-]{8,}"  # a header's value
    r"|(?<![\w-])eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"  # a JSON web token
    r"|\b(?:sk|pk|rk|ghp|gho|ghs|ghu|glpat|xox[abprs]|mgw|npm|AKIA)[-_A-Za-z0-9]{12,}"  # keys of well-known services
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----[^-]*(?:-----END [A-Z ]*PRIVATE KEY-----)?"
    r"|\b(?:\d[ -]?){13,19}\b"  # a card's number
)


def masked(value: Any) -> Any:
    """The same value with what may be a secret replaced."""
    if isinstance(value, dict):
        return {
            name: REDACTED if _SECRET_NAME.search(name) and each not in (None, True, False) else masked(each)
            for name, each in value.items()
        }
    if isinstance(value, list):
        return [masked(each) for each in value]
    return _SECRET_TEXT.sub(REDACTED, value) if isinstance(value, str) else value
