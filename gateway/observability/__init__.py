"""What an operator sees of a worker: log lines and figures.

At the bottom, so that every floor can use it; must not know any other. Start with `call_log`.
"""
