"""Who may come in, and how much they may have under way: credentials become principals, principals have limits.

Knows `model/principals` and headers as text; must not know HTTP messages, methods or the registry. Start with
`authenticator`.
"""
