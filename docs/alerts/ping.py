"""Tell a check of healthchecks.io how a run ended, so that it pages as enroll.rules.yml does:

    after = "python3 /etc/enroll/ping.py https://hc-ping.com/UUID"

Exit codes that need a person are failures. Those that the next night repairs are only logged: if
no night gets on within the check's period and grace time, the check raises the alarm by itself.
"""

import json
import sys
from urllib.request import urlopen

GOT_ON = (0, 1, 4)
NEEDS_A_PERSON = (2, 3, 7, 8, 70)
ANOTHER_RUN = 5


def ending(code: int, calls: dict[str, int]) -> str:
    """What to append to the check's URL; nothing if the night has got on."""
    if code in GOT_ON or (code == 6 and calls["add"] + calls["delete"] > 0):
        return ""
    return f"/{code}" if code in NEEDS_A_PERSON else "/log"


figures = json.load(sys.stdin)
if figures["exit_code"] != ANOTHER_RUN:  # which tells by itself how it went
    url = sys.argv[1] + ending(figures["exit_code"], figures["calls"] or {"add": 0, "delete": 0})
    urlopen(url, data=figures["reason"].encode(), timeout=8).close()  # noqa: S310 - the user's own
