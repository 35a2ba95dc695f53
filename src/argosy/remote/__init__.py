"""The distribution-spec's client: one registry, its repositories, and everything between them and a socket.

    registry     Registry: ping, catalog, repositories
    repository   Repository: a Target, Deleter, Mounter and Resumable
    flows        the protocol as generators: they yield a Request and are sent a Response; no sockets
    upload       the flows that move a blob to a registry
    unfinished   what is remembered of uploads that broke, from one run to the next
    download     a blob's bytes, continued where the connection broke
    referrers    the list of a subject's referrers, where the registry has no API for it
    session      one registry host: scheme, credentials, redirects, retries, limits
    auth         challenges and tokens (RFC 9110 §11, the Docker token specification)
    credentials  which file or helper knows a password, and writing it there
    config       Options, registries.conf and certs.d
    shortnames   names without a registry, as registries.conf has them
    wire         Request, Response, Headers, and errors from answers
    transport    the one door to sockets: the pool, sending, redirect guards, proxies
    connection   one connection: deadlines and TLS
    http1        HTTP/1.1: heads, and where bodies end
    nested       TLS within TLS, for proxies that speak it
    network      addresses: which are public, which a redirect may lead to

Rules of this room:

1. A `Transport` sends one request and returns its answer, nothing more. What to send next is decided by flows.
2. Nothing from the other side is trusted: sizes, digests, locations, links, realms. Every wait has an end.
3. Credentials go to the host they are for, over the scheme that was settled, and nowhere else.
4. The environment is read by nobody here: `Options.from_environment` takes a mapping.
"""
