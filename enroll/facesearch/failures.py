"""How a call can fail on its way: before its first byte left, or after.

requests.exceptions.ConnectionError
├── NotSentError              no byte of the request can have reached the service
│   └── BlockedError          … because this machine let us open no connection
└── LostError                 a part of the request had left; what became of it is unknown
    └── DeadlinePassedError   … because its time was over; also a requests Timeout
"""

from __future__ import annotations

import requests

from enroll.facesearch.codes import OwnCode


class NotSentError(requests.exceptions.ConnectionError):
    """No byte of the request can have reached the service, so that it is safe to send again."""

    def __init__(self, code: OwnCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class BlockedError(NotSentError):
    """This machine let us open no file or connection; that tells nothing of the service."""

    def __init__(self, message: str) -> None:
        super().__init__(OwnCode.OUT_OF_RESOURCES, message)


class LostError(requests.exceptions.ConnectionError):
    """The request had begun to leave, and no whole answer came back.

    `response` holds status and headers, and an empty body, where these had arrived.
    """

    def __init__(
        self, code: OwnCode, message: str, *, response: requests.Response | None = None
    ) -> None:
        super().__init__(message, response=response)
        self.code = code


class DeadlinePassedError(LostError, requests.exceptions.Timeout):
    """The time for the whole call was over before the whole answer was there."""
