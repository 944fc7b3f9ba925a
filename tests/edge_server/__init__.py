"""A Qdrant server for tests: the wire is real (gRPC and HTTP over sockets), answers come from the real engine (Edge).

What it knows of the protocol is what qdrant-client's own messages and conversions say. It is one node without a cluster
and keeps collections in a folder that goes with it.
"""

from edge_server.serving import EdgeServer, serve

__all__ = ["EdgeServer", "serve"]
