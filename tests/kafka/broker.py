"""Where the tests of this folder find a broker; it is made in `tools/kafka`, for the demo too."""

from tools.kafka.broker import HEAP, SUPER_USER, Cluster, KafkaMissing, Node, cluster, free_ports, libraries, missing

__all__ = [
    "HEAP",
    "SUPER_USER",
    "Cluster",
    "KafkaMissing",
    "Node",
    "cluster",
    "free_ports",
    "libraries",
    "missing",
]
