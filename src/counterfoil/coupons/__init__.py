"""Affiliate coupons: how often each code was used."""
