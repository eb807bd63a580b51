"""Vouchers: scans, claims, redemptions and impressions."""
