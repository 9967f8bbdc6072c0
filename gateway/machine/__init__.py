"""What is asked of the operating system: a child's privileges, and who holds a port. Linux only where it must be.

Must know nothing of the gateway. Start with `privileges`.
"""
