"""The server as a process of its own, for benchmarks: prints its ports and serves until its input ends."""

from __future__ import annotations

import argparse
import json
import sys

from edge_server.serving import serve


def main() -> None:
    parser = argparse.ArgumentParser(prog="edge_server", description=__doc__)
    parser.add_argument("--fast", action="store_true", help="encode vectors once")
    with serve(fast=parser.parse_args().fast) as server:
        print(json.dumps({"port": server.port, "grpc_port": server.grpc_port}), flush=True)  # noqa: T201
        sys.stdin.read()


if __name__ == "__main__":
    main()
