"""Ledger and library brought together: `enroll verify`, `enroll adopt`, `enroll resolve`."""
