"""The Alchemist protocol: bytes in, messages out, and the reverse. No I/O here.

=============  ================================================================================
`frames`       a frame: 16 bytes of prefix, a msgpack header, raw payload
`values`       the values that a header may contain: msgpack's types, arrays, complex, matrix references
`messages`     every message, as a dataclass
`handshake`    the proof, by both sides, that they know the token or ticket
`connection`   the state machine of a connection
=============  ================================================================================
"""

from alchemist_ray.protocol.connection import Connection, Key, Side, State
from alchemist_ray.protocol.frames import VERSION

__all__ = ["VERSION", "Connection", "Key", "Side", "State"]
