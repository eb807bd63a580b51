"""Free ports on 127.0.0.1."""

from __future__ import annotations

import random
import socket

from counterfoil.errors import DependencyUnreachable

# Below the range that kernels give to outgoing connections (Linux from 32768): while a server restarts, a
# client that keeps trying an address inside that range can connect to itself, and then holds the port.
LOWEST, HIGHEST = 15_000, 32_000


def free_port() -> int:
    """A port that nobody listens on now, and that the kernel gives to no client."""
    candidates = random.sample(range(LOWEST, HIGHEST), 200)
    for port in candidates:
        if _is_free(port):
            return port
    raise DependencyUnreachable(f"no free port between {LOWEST} and {HIGHEST} on 127.0.0.1")


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
