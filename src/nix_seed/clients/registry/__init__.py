"""A client of OCI registries (distribution specification 1.1).

::

    transport    one request over TLS: time limits, proxies, what plain HTTP is allowed for
    credentials  who we are: Docker's and podman's files, helpers, the environment
    auth         what the registry asks of us: Basic, Bearer tokens and their scopes
    session      the three together: challenges, redirects, what is tried again and when
    upload       blobs out        download   blobs in, resumed and verified
    referrers    what points at a manifest, by API and by fallback tag
    client       a registry and its repositories, made of all of these

A registry is never trusted: what has a digest is hashed here before anyone sees the end of it.
"""
