"""Make keys that sign callbacks."""

from __future__ import annotations

import secrets

from common import signing
from tools.terminal.tables import say


def keygen(*, shared: bool) -> None:
    """Print a new pair of keys, private and public, or one *shared* key."""
    if shared:
        print(signing.encode(signing.SHARED, secrets.token_bytes(32)))
        say("Set it as CALLBACK_SECRET and give it to the receivers, each of which could forge.")
        return
    key = signing.PrivateKey(secrets.token_bytes(signing.ED25519_BYTES))
    print(signing.encode(signing.PRIVATE, key.seed))
    print(signing.encode(signing.PUBLIC, key.public_bytes))
    say("Set the first as CALLBACK_SECRET, for nobody else; the second is for receivers.")
