"""Hypercorn's own tests of HTTP/1.1 over its TCP server, run on its own protocol and on ours."""
