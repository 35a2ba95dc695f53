"""Who asks, and what they may: users of an htpasswd file, tokens of our own and of others, one policy, deny by default.

`gate.open_gate(settings)` makes the `Access` the application asks. Where nothing at all is configured and the registry
listens on loopback only, that is `Anonymous`, which costs nothing.
"""
