"""Erases a person from ledgers and dead letters, and keeps every count."""

from counterfoil.forgetting.erasure import Erasure, Tell
from counterfoil.forgetting.people import forget_customer
from counterfoil.forgetting.visitors import forget_visitor

__all__ = ["Erasure", "Tell", "forget_customer", "forget_visitor"]
