"""How people prove who they are: an identity provider, tokens, a reverse proxy's word; and the sessions they then have."""
