"""What of a registration is shown: everything but what may be a secret. Pure.

A URL is shown without its user, the values of its query and long segments of letters and digits; a program's arguments
without the values of `NAME=value`, what follows a flag that asks for a secret or a header, headers whose names tell of
one, users in URLs, and long segments. What has none of these shapes is shown.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

REDACTED = "[redacted]"
_REFERENCE = re.compile(r"((Bearer|Basic|Token|ApiKey) )?\$\{(env|file):[^{}]*\}", re.IGNORECASE)
_SECRET_NAME = re.compile(r"key|token|secret|passw|signature|\bsig\b|auth|credential|bearer|\bpat\b", re.IGNORECASE)
_SEGMENT = re.compile(r"(?=[A-Za-z0-9_-]*[0-9])(?=[A-Za-z0-9_-]*[A-Za-z])[A-Za-z0-9_-]{20,}")
_NAMED = re.compile(r"(-{0,2}[A-Za-z_][\w.-]*=)(.+)", re.DOTALL)
_HEADER = re.compile(r"([A-Za-z][A-Za-z0-9-]*:\s*)(.+)", re.DOTALL)
_HEADER_FLAGS = frozenset({"-H", "--header", "--headers"})
_USER = re.compile(r"(?<=://)[^/@\s]+(?=@)")


def redact_url(url: str) -> str:
    """A URL as it is shown."""
    parts = urlsplit(url)
    names = [name for name, _ in parse_qsl(parts.query, keep_blank_values=True)]
    query = urlencode([(name, REDACTED) for name in names], safe="[]")
    user, at, host = parts.netloc.rpartition("@")
    netloc = f"{REDACTED if user else ''}{at}{host}"
    return urlunsplit(parts._replace(netloc=netloc, path=_without_segments(parts.path), query=query))


def redact_value(value: str) -> str:
    """The value of a header or variable as it is shown: a reference, which is no secret, or nothing of it."""
    return value if _REFERENCE.fullmatch(value) else REDACTED


def redact_arguments(arguments: Sequence[str]) -> list[str]:
    """A program's arguments as they are shown."""
    shown: list[str] = []
    asked = asked_header = False
    for argument in arguments:
        header = _HEADER.fullmatch(argument)
        if header and (asked_header or _SECRET_NAME.search(header[1])):
            shown.append(header[1] + REDACTED)
        elif asked_header or (asked and not argument.startswith("-")):
            shown.append(REDACTED)
        elif named := _NAMED.fullmatch(argument):
            shown.append(named[1] + REDACTED)
        else:
            shown.append(_without_segments(_USER.sub(REDACTED, argument)))
        asked_header = argument in _HEADER_FLAGS
        asked = argument.startswith("-") and "=" not in argument and _SECRET_NAME.search(argument) is not None
    return shown


def _without_segments(text: str) -> str:
    return _SEGMENT.sub(REDACTED, text)
