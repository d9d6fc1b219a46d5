"""The Alchemist protocol: bytes in, messages out, and the reverse. No I/O here.

=============  ================================================================================
`frames`       a frame: 16 bytes of prefix, a msgpack header, raw payload
`values`       what a header may contain beside msgpack's own types: arrays, complex, matrix references
`messages`     every message, as a dataclass
`handshake`    how both sides prove that they know the token or ticket
`connection`   the state machine that ties them together
=============  ================================================================================
"""

from alchemist_ray.protocol.connection import Connection, Key, Side, State
from alchemist_ray.protocol.frames import VERSION

__all__ = ["VERSION", "Connection", "Key", "Side", "State"]
