"""Affiliates: who they are, what their pixels counted, and the clicks and conversions that are reported by HTTP."""
