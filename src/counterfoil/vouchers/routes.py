"""The HTTP side of vouchers: reporting what happened to them, reading what came of it, and customers' wallets."""

from __future__ import annotations

from counterfoil.vouchers.analytics import show_analytics
from counterfoil.vouchers.tracking import claim_voucher, redeem_voucher, track_scan
from counterfoil.vouchers.wallet import change_in_wallet, show_wallet

VOUCHER_ROUTES = (
    track_scan,
    claim_voucher,
    redeem_voucher,
    show_analytics,
    show_wallet,
    change_in_wallet,
)
"""Every route of vouchers."""
