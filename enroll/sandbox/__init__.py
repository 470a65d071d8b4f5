"""A local stand-in of the FaceSearch service, for tests, rehearsals and the demo.

It is written from the API's documentation alone and shares no code with the rest of `enroll`:
a stand-in that shared the client's signing would prove nothing about it.
"""

from __future__ import annotations

from .account import Face, Limits, StoreError
from .box import Sandbox, serve
from .calls import CallKind
from .desk import Call
from .faults import Fault, FaultKind, parse_fault, parse_fault_option

__all__ = [
    "Call",
    "CallKind",
    "Face",
    "Fault",
    "FaultKind",
    "Limits",
    "Sandbox",
    "StoreError",
    "parse_fault",
    "parse_fault_option",
    "serve",
]
