"""The HTTP side: ASGI in, an answer out, in the protocol that the caller speaks.

Everything about requests, responses, framing and addresses is here; what a method does is not (`methods`). Must not
know Postgres, nor a server's wire. Start with `app`, then `routes`, then the file that the route names.
"""
