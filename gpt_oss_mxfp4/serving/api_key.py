"""Keys that requests must carry."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable

from gpt_oss_mxfp4.serving.errors import Rejected


class ApiKeys:
    """The keys, as digests: all of one length, so that comparing them tells nothing about a key's.

    Args:
        keys: any of which a request must carry; none where all requests are welcome.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        self._digests = [_digest(key.encode()) for key in keys]

    def check(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Checks a request.

        Args:
            headers: the request's, names in lower case.

        Raises:
            Rejected: it carries no key, or another.
        """
        if not self._digests:
            return
        values = [value for name, value in headers if name == b"authorization"]
        if len(values) != 1:
            raise _unauthorized("Send your API key as `Authorization: Bearer KEY`.")
        scheme, _, key = values[0].partition(b" ")
        if scheme.lower() != b"bearer":
            raise _unauthorized("Send your API key as `Authorization: Bearer KEY`.")
        digest = _digest(key.strip())
        # Added up, so that each is compared whichever fits.
        if not sum(hmac.compare_digest(digest, known) for known in self._digests):
            raise _unauthorized("The API key is not one of this server's.")


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _unauthorized(message: str) -> Rejected:
    return Rejected(
        401, message, code="invalid_api_key", headers=[(b"www-authenticate", b"Bearer")]
    )
