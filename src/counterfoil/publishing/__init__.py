"""For the platform's side: typed events to the right topic, with the right key and headers."""

from counterfoil.publishing.publisher import Published, Publisher

__all__ = ["Published", "Publisher"]
