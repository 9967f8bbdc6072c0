"""The process that runs stdio servers, so that workers need not: programs are started, fed, restarted and reaped here.

A process of its own beside the workers, which reach it over a Unix socket as they reach any server. Must not know the
registry, sessions or methods. Start with `app` (the socket), then `processes` (the children).
"""
