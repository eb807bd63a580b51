"""Promo codes: how often each was used and what bonus it has issued."""
