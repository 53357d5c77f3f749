"""How alerts come in: over HTTP, from files that Falco writes, from standard input; all through one door.

Read in this order: auth (who may), webhook (HTTP), tail and follow (files), door (where all meet), heartbeat.
"""
