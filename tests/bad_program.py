"""Programs that a bridge must bear: `python -m tests.bad_program HOW`."""

import json
import os
import signal
import sys
import time


def answer(id: object, result: object) -> None:
    print(json.dumps({"jsonrpc": "2.0", "id": id, "result": result}), flush=True)


def main() -> None:
    how = sys.argv[1]
    if how == "exits":
        print("no licence found", file=sys.stderr)
        sys.exit(3)
    if how == "hangs":
        time.sleep(600)
    if how == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for line in sys.stdin:
        message = json.loads(line)
        match message.get("method"):
            case "initialize":
                info = {"name": how, "version": "1"}
                version = message["params"]["protocolVersion"]
                answer(message["id"], {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info})
            case "tools/list":
                answer(message["id"], {"tools": [{"name": "do", "inputSchema": {"type": "object"}}]})
            case "tools/call":
                do(how, message)
    if how == "stubborn":
        time.sleep(600)


def do(how: str, message: dict[str, object]) -> None:
    match how:
        case "garbage":
            print("Hello, I am a debugging aid", flush=True)
            print('{"jsonrpc": "2.0", "half a', flush=True)
            sys.stdout.buffer.write(b"\xff\xfe\x00 binary\n")
            sys.stdout.buffer.flush()
        case "floods":
            for number in range(20_000):
                print(f"line {number}", file=sys.stderr)
        case "closes":
            os.close(1)
            time.sleep(600)
        case "descriptors":
            numbers = sorted(map(int, os.listdir("/proc/self/fd")))[:-1]  # the last one lists them
            answer(message["id"], {"content": [{"type": "text", "text": json.dumps(numbers)}]})
            return
        case "slow":
            time.sleep(2)
        case "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        case "endless":
            sys.stdout.write("x" * (40 << 20))
            sys.stdout.flush()
        case "environment":
            found = sorted(name for name in os.environ if "GATEWAY" in name or "DATABASE" in name or name == "MINE")
            answer(message["id"], {"content": [{"type": "text", "text": json.dumps([found, os.getcwd(), sys.argv])}]})
            return
    answer(message["id"], {"content": [{"type": "text", "text": str(os.getpid())}]})


if __name__ == "__main__":
    main()
