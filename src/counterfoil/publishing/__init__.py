"""The way out: typed events to the right topic, with the right key and headers, for the platform and for our HTTP."""

from counterfoil.publishing.http_publisher import HttpPublisher
from counterfoil.publishing.publisher import Published, Publisher

__all__ = ["HttpPublisher", "Published", "Publisher"]
