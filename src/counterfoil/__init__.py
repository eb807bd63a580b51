"""counterfoil: a shop's Kafka events become PostgreSQL counts that cannot drift.

For publishers: `from counterfoil import Publisher, events`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from counterfoil import events
    from counterfoil.publishing import Publisher

__version__ = "0.1.0"
__all__ = ["Publisher", "__version__", "events"]


def __getattr__(name: str) -> Any:
    """Load the public names when they are first asked for: `counterfoil --help` needs none of them."""
    if name == "events":
        return import_module("counterfoil.events")
    if name == "Publisher":
        return import_module("counterfoil.publishing").Publisher
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
