"""Mutual proof of a shared key by HMAC challenge; the key itself never crosses the wire.

Both proofs cover both nonces, the purpose and the worker group, so that no proof can be replayed on another connection.
A label keeps one side from sending the other side's proof back as its own. HMAC is defined in RFC 2104. The exchange
follows SCRAM (RFC 5802) without the password derivation, as a token is 32 random bytes and not a password.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass

from alchemist_ray.protocol.frames import VERSION
from alchemist_ray.protocol.messages import Hello

NONCE_BYTES = 32
ACCEPTOR, INITIATOR = b"acceptor", b"initiator"


def new_nonce() -> bytes:
    """Return 32 random bytes."""
    return secrets.token_bytes(NONCE_BYTES)


def new_token() -> str:
    """Return an unguessable token: 32 random bytes, as text."""
    return secrets.token_urlsafe(32)


@dataclass(frozen=True, slots=True)
class Transcript:
    """The messages of both sides that the proofs cover."""

    hello: Hello
    nonce: bytes

    def proof(self, label: bytes, key: bytes) -> bytes:
        """Return the proof by which the side `label` shows that it knows `key`."""
        opening = f"alchemist {VERSION} {self.hello.purpose} {self.hello.group_id}".encode()
        said = b"\0".join((label, opening, self.hello.nonce.hex().encode(), self.nonce.hex().encode()))
        return hmac.new(key, said, hashlib.sha256).digest()

    def verify(self, label: bytes, key: bytes, proof: bytes) -> bool:
        """Whether `proof` is the proof of the side `label`."""
        return hmac.compare_digest(self.proof(label, key), proof)
