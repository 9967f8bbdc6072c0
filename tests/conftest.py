"""The fixtures' homes; nothing else."""

pytest_plugins = [
    "tests.fix_loop",
    "tests.fix_stores",
    "tests.fix_gateway",
    "tests.fix_proxy",
    "tests.fix_stack",
    "tests.fix_everything",
    "tests.fix_node",
]
