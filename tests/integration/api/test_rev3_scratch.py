from __future__ import annotations
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, urlencode
import pytest, json
from counterfoil.explaining import KINDS
from counterfoil.explaining.routes import EXPLAIN_ROUTES
from counterfoil.console.pages import CONSOLE_ROUTES
from counterfoil.partners.routes import PARTNER_ROUTES
from support.console import ROUTES, serving
from counterfoil.affiliates.routes import AFFILIATE_ROUTES
from counterfoil.coupons.routes import list_affiliate_coupons
from counterfoil.promos.routes import list_promo_codes
ADMIN_ROUTES=(list_affiliate_coupons,list_promo_codes,*AFFILIATE_ROUTES)
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ATS = ["0001-01-01T00:00:00Z","0001-01-02T00:00:00Z","0001-01-15T00:00:00Z","9999-12-31T23:59:59.999999Z","0001-01-01T00:00:00+14:00","9999-12-31T23:59:59-14:00",
 "2026-03-01T12:00:60Z","2016-12-31T23:59:60Z","2026-W01-1T00:00:00Z","20260301T120000Z","2026-03-01T12:00:00.1234567Z","2026-03-01t12:00:00z","2026-03-01 12:00:00+00:00","2026-03-01T24:00:00Z","infinity","","   ","2026-03-01T12:00:00+23:59:59.5","2026-03-01T12+00:00", "2026-03-01T12:00:00,5Z","2026-03-01X12:00:00Z","\u0662026-03-01T12:00:00Z","2026-03-01\u202812:00:00Z","2026-03-01T12:00:00Z\x00","4713-01-01T00:00:00Z"]
async def test_ats(pool, db):
    await db.execute("INSERT INTO affiliates (handle,name,pixel_id,status) VALUES ('h','H','p1','active')")
    await db.execute("INSERT INTO partners (id,name) VALUES ('px','x')")
    await db.execute("INSERT INTO promo_codes (code) VALUES ('P')")
    await db.execute("INSERT INTO affiliate_coupon_usages (order_id, code, occurred_at) VALUES ('1','A',$1)", NOON)
    await db.execute("INSERT INTO conversions (order_id, beneficiary, pixel_id, revenue, currency, occurred_at) VALUES ('1','pixel:p1','p1',10,'USD',$1)", NOON)
    async with serving(pool, token=None, routes=(*ROUTES, *[r for r in ADMIN_ROUTES], *PARTNER_ROUTES)) as s:
        c = s.client
        for path in ["/admin/affiliate-coupons","/admin/promo-codes","/api/affiliates","/api/affiliates/h","/api/affiliates/h?days=366","/api/partners/px/earnings","/api/partners/px/earnings?groupBy=month","/api/partners/px/earnings?format=csv","/api/explain/coupon/A","/api/explain/promo/P","/api/explain/affiliate/h?days=366","/api/explain/partner/px","/ops/explain/affiliate?id=h&days=366","/ops/explain/partner?id=px"]:
            for at in ATS:
                try:
                    r = await c.get(path + ("&" if "?" in path else "?") + urlencode({"at": at}))
                    if r.status not in (200,422) or path in ("/api/affiliates/h",):
                        print(path, repr(at), r.status, r.body[:160] if r.status!=200 else r.headers.get("x-as-of"))
                except Exception as e:
                    print(path, repr(at), "EXC", repr(e)[:200])
IDS = ["..",".","../x","a/../b","%","%2F","%2e%2e","a'b\"","\u202eabc","x"*10000,"a\x00b","\ud800","'; DROP TABLE x;--","<script>","a\nb","javascript:alert(1)","a&b=c","é","1e5","9"*18,"9"*19,"-1","٣","０"]
async def test_ids(pool, db):
    async with serving(pool, token=None) as s:
        for kind in KINDS:
            for i in IDS:
                raw = i.encode("utf-8","surrogatepass")
                for path in (f"/api/explain/{kind}/{quote(raw,safe='')}", f"/api/explain/{kind}?id={quote(raw,safe='')}", f"/ops/explain/{kind}?id={quote(raw,safe='')}", f"/ops/explain?kind={kind}&id={quote(raw,safe='')}"):
                    try:
                        r = await s.client.get(path)
                        if r.status not in (404,303) :
                            print(path[:80], r.status, r.body[:200])
                        if r.status==303 and i=="a&b=c": print(r.headers["location"])
                    except Exception as e:
                        print(path[:80], "EXC", repr(e)[:200])
        for p in ("/api/explain/bogus/x","/api/explain/bogus","/ops/explain/bogus?id=1","/ops/explain?kind=bogus&id=1","/api/explain/coupon/A?limit=0","/api/explain/coupon/A?limit=201","/api/explain/coupon/A?days=0","/api/explain","/api/explain/","/api/explain/coupon/","/ops/explain/coupon/x", "/ops/explain/coupon/?id=A","/ops/explain/coupon?id=A&limit=abc"):
            r = await s.client.get(p); print(p, r.status, r.headers.get("content-type"), r.body[:120])
