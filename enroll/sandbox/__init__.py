"""A local stand-in for the FaceSearch service, for tests, rehearsals and the demo.

It is written from the API's documentation alone and shares no code with the rest of `enroll`:
a stand-in that shared the client's signing would prove nothing about it.
"""

from __future__ import annotations

from .account import Face, Limits, StoreError
from .calls import CallKind
from .faults import Fault, FaultKind, parse_fault, parse_fault_option
from .made_up import made_up_photo
from .matchers import MATCHERS
from .profile import Profile, read_profile
from .sandbox import Sandbox, serve
from .service import Call

__all__ = [
    "MATCHERS",
    "Call",
    "CallKind",
    "Face",
    "Fault",
    "FaultKind",
    "Limits",
    "Profile",
    "Sandbox",
    "StoreError",
    "made_up_photo",
    "parse_fault",
    "parse_fault_option",
    "read_profile",
    "serve",
]
