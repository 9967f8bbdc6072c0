"""How a gateway becomes processes: the supervisor, its workers, stores of its own, and the demo stack.

Knows the operating system and hypercorn; must not know what a request is. Start with `supervisor`, then `worker`.
"""
