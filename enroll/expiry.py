"""When a call can no longer be applied: the reckoning of signatures' expiries. Pure, no clock.

The service refuses a call whose signature has expired, by its own clock, and applies what came
in time within `--settle-after`. So the promise that no face is added twice hangs on never taking
a signature for expired that is not. Times are UNIX seconds on the service's clock, as far as it
is known. Why nothing can be applied after what is returned here:

1. *A call that has ended* names its expiry itself: `signed_until`. That is a number in the
   signature, so no error of ours is in it, and the service goes by that number.
2. *The look* comes when our reckoning of the service's clock says so (`settled_from`). That
   reckoning comes from `Date` headers, which are cut off to whole seconds: the middle of the
   bounds is wrong by half a second and half the shortest round trip, `CLOCK_ERROR_SECONDS` at
   most where any answer took no longer than a second. So much later is late enough.
3. *A call that is still under way when its run ends* (`last_expiry`) began at the latest now. It
   is signed anew each time that it could not leave, but always for the rest of the one time that
   it has: it expires `timeout` and `SIGNED_BEYOND_SECONDS` after it began, rounded up. It was
   signed by the service's clock as it was reckoned then; as bounds only become narrower, that
   differs from the reckoning now by `CLOCK_ERROR_SECONDS` at most.
4. *A call that a killed run left* (`expiry_after_death`) left after the run's last commit, whose
   sign of life is in the ledger: when that commit began, before the disk was waited for, and as
   much later as the commit before it took. However long the disk takes, no call is handed out
   later than `ALIVE_SECONDS` after it without a new commit. It is on its way out to a thread for
   `LEAVING_SECONDS` at most, and from its beginning on 3 holds. The service's clock is the one
   reckoned when the run began.

What this leaves out: a clock of this machine that is set while a run goes on that is killed
within a minute of it.
"""

from __future__ import annotations

import math

DEFAULT_TIMEOUT = 60.0
"""Seconds that a whole call may take where nobody says otherwise."""

DEFAULT_SETTLE_AFTER = 10.0
"""Seconds behind the expiry of its signature in which a call may still be applied, the same."""

SIGNED_BEYOND_SECONDS = 2.0
"""From a call's deadline to its signature's expiry: what a call may take to be judged."""

ROUNDING_SECONDS = 1.0
"""A signature names whole seconds, rounded up."""

CLOCK_ERROR_SECONDS = 1.0
"""By how much the service's clock may be misjudged."""

ALIVE_SECONDS = 1.0
"""No call leaves longer than this after the sign of life that its run's last commit gave."""

LEAVING_SECONDS = 1.0
"""From handing a call out to its beginning, on another thread of a busy machine."""

APPLYING_SECONDS = 60.0
"""What a copy's time may lie outside of its attempt's, beside all this: what the service takes to
apply a call, and clocks that were set since."""


def signed_until(now: float, *, left: float) -> int:
    """The expiry to sign a call with that has `left` seconds to its deadline: whole seconds."""
    return math.ceil(now + left + SIGNED_BEYOND_SECONDS)


def settled_from(expires: float, *, settle_after: float) -> float:
    """When a look by our reckoning of the service's clock shows all that came in time."""
    return expires + CLOCK_ERROR_SECONDS + settle_after


def last_expiry(now: float, *, timeout: float) -> float:
    """When no call that has begun by `now` can be accepted any more."""
    return now + timeout + SIGNED_BEYOND_SECONDS + ROUNDING_SECONDS + CLOCK_ERROR_SECONDS


def expiry_after_death(alive_at: float, *, timeout: float) -> float:
    """The same for the calls of a run that committed last at `alive_at` and was killed."""
    return last_expiry(alive_at + ALIVE_SECONDS + LEAVING_SECONDS, timeout=timeout)
