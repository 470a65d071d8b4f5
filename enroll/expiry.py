"""When a call can no longer be applied: the reckoning of signatures' expiries. Pure, no clock.

The service refuses a call whose signature has expired, by its own clock, and applies what came
in time within `--settle-after`. So the promise that no face is added twice hangs on never taking
a signature for expired that is not. Times are UNIX seconds on the service's clock, as far as it
is known. Why nothing can be applied after what is returned here:

1. *A call that the run itself has seen leave* names its expiry: `signed_until`. That is a number
   in the signature, so no error of ours is in it, and the service goes by that number. It is
   signed once, by the loop, as it is handed out. Later tries of what never left bear the same
   signature, and a call that finds a thread only when its time is over does not leave. So neither
   the call's answer nor the end of its run has to estimate anything.
2. *The look* comes when our reckoning of the service's clock says so (`settled_from`). That
   reckoning comes from `Date` headers, which are cut off to whole seconds: the middle of the
   bounds is wrong by half a second and half the shortest round trip, `CLOCK_ERROR_SECONDS` at
   most where any answer took no longer than a second. So much later is late enough. Answers may
   contradict what was learned, because one of the clocks was set or because one answer is wrong:
   until enough of them agree which it is, a look goes by the lower of the two
   (`least_clock_offset`), so that it comes too late rather than too early. Who decides without
   asking the service goes by the lowest of a whole run, which is in the ledger (`ClockOffsets`).
3. *A call that a killed run left* expires no later than its intent says, which was on disk before
   the call left. The loop signs first, then compares the two numbers, and hands the call out only
   if its signature expires no later than the intent allows. Otherwise the intent is recorded again
   with a later expiry, and the call waits for that commit. However long the disk takes, the
   process is held up, or the call waits for a thread, and whatever the clocks do meanwhile, both
   numbers stay as they are.
4. *The run's sign of life* bounds the same calls once more (`expiry_after_death`), and the later of
   the two bounds holds; an intent that names no expiry has only this one. The last commit has
   recorded it: when that commit began, before the disk was waited for, and as much later as the
   commit before it took. No call is signed later than `ALIVE_SECONDS` after it without a new
   commit. The highest offset that any call was signed with up to then (`most_clock_offset`) is
   written with it, and a call expires at the latest as `last_expiry` says.
5. *No expiry is believed beyond `latest_expiry`*, neither a new one nor one that is on record.
   That takes nothing away from 1 to 4. Where our clock has only run on since the call was signed,
   it was signed before now, with an offset of at most `CLOCK_BOUND_SECONDS`. Where our clock was
   set since, the call began before now by the service's clock, which is at most that far ahead of
   ours now, or else no call is made. Either way it expires by now + the bound + its time and the
   margins of `last_expiry`. Its time is the longest of any run on record: an earlier one may have
   allowed its calls more than this one does. What lies later comes from a version that believed
   any `Date`, or is an intent's margin. It is cut to the bound once, when a command begins to
   write, and from then on draws nearer. A signature by such a `Date` may be good for years; what
   ends its call is the connection, which is gone with the process that made it.

What this leaves out: a service whose answers agree on a wrong time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

DEFAULT_TIMEOUT = 60.0
"""Seconds that a whole call may take where nobody says otherwise."""

DEFAULT_SETTLE_AFTER = 10.0
"""Seconds behind the expiry of its signature in which a call may still be applied, the same."""

SIGNED_BEYOND_SECONDS = 2.0
"""From the end of a call's time to its signature's expiry: what it may take to begin on another
thread, and to be judged."""

ROUNDING_SECONDS = 1.0
"""A signature names whole seconds, rounded up."""

CLOCK_ERROR_SECONDS = 1.0
"""By how much the service's clock may be misjudged."""

ALIVE_SECONDS = 1.0
"""No call leaves longer than this after the sign of life that its run's last commit gave."""

INTENT_SECONDS = 2.0
"""How long a call has to leave after its intent is recorded, beyond what a commit takes; after that
its intent is renewed."""

CLOCK_BOUND_SECONDS = 900.0
"""How far the service's clock may be from ours; where it is farther, nothing is signed. No clock
that anybody looks after drifts so far, and a quarter of an hour can be waited for."""

DELETING_SECONDS = 3600.0
"""When no call of `delete` can take a face out any more that was recorded so long ago: its rounds,
refusals and signatures are over by then."""

APPLYING_SECONDS = 60.0
"""What a copy's time may lie outside of its attempt's, beside all this: what the service takes to
apply a call, and clocks that were set since."""


def signed_until(now: float, *, left: float) -> int:
    """The expiry to sign a call with that has `left` seconds to its deadline: whole seconds."""
    return math.ceil(now + left + SIGNED_BEYOND_SECONDS)


def settled_from(expires: float | None, *, settle_after: float, lag: float = 0.0) -> float:
    """When a look by our reckoning of the service's clock shows all that came in time, in a library
    that shows a new face `lag` seconds late. `expires` is None where no call was made."""
    return (expires or 0.0) + CLOCK_ERROR_SECONDS + settle_after + lag


def look_again_after(*, settle_after: float, lag: float) -> float:
    """Seconds from a look in vain to the one that confirms it."""
    return 2 * max(settle_after, 1.0) + 2 * lag


def absent_from(expires: float | None, *, settle_after: float, lag: float) -> float:
    """When a single look in vain proves as much as a run's two: that nothing was added."""
    settled = settled_from(expires, settle_after=settle_after, lag=lag)
    return settled + look_again_after(settle_after=settle_after, lag=lag)


def last_expiry(now: float, *, timeout: float) -> float:
    """When no call that was signed by `now` can be accepted any more."""
    return now + timeout + SIGNED_BEYOND_SECONDS + ROUNDING_SECONDS + CLOCK_ERROR_SECONDS


def expiry_after_death(alive_at: float, *, timeout: float) -> float:
    """The same for the calls of a run that committed last at `alive_at` and was killed."""
    return last_expiry(alive_at + ALIVE_SECONDS, timeout=timeout)


def latest_expiry(now: float, *, timeout: float) -> float:
    """The latest that any signature made by `now`, by our own clock, can expire; `timeout` is the
    longest that any of its calls was given."""
    return last_expiry(now + CLOCK_BOUND_SECONDS, timeout=timeout)


def bounded_offset(offset: float) -> float:
    """A difference of the clocks (the service's minus ours), as far as one is believed."""
    return min(max(offset, -CLOCK_BOUND_SECONDS), CLOCK_BOUND_SECONDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockOffsets:
    """The lowest and the highest that the service's clock minus ours was judged to be, in seconds:
    what has expired is judged by `least`, what may still be accepted by `most`."""

    least: float = 0.0
    most: float = 0.0

    def bounded(self) -> ClockOffsets:
        """The same, as far as differences are believed."""
        return ClockOffsets(least=bounded_offset(self.least), most=bounded_offset(self.most))

    def including(self, other: ClockOffsets) -> ClockOffsets:
        """The widest of both."""
        return ClockOffsets(least=min(self.least, other.least), most=max(self.most, other.most))
