"""When a call can no longer be applied, computed from the expiry of signatures. Pure, no clock.

The service refuses a call whose signature has expired by its own clock, and applies what arrived
in time within `--settle-after`. So the promise that no face is added twice depends on never taking
a signature for expired that is not. Times are UNIX seconds on the service's clock, as far as it
is known. Why nothing can be applied after the times returned here:

1. *A call that the run itself has seen leave* has a known expiry: `signed_until`. It is a number
   in the signature, so it is exact, and the service goes by that number. The loop signs a call
   once, when it hands it out. Later tries of a call that never left carry the same signature, and
   a call that gets a thread only after its time is over is not sent. So neither the call's answer
   nor the end of its run requires an estimate.
2. *A look* is made when the estimate of the service's clock says so (`settled_from`). The estimate
   comes from `Date` headers, which are truncated to whole seconds: the middle of the bounds is
   wrong by up to half a second plus half the shortest round trip, which is at most
   `CLOCK_ERROR_SECONDS` if any answer took no longer than a second. Waiting that much longer is
   enough. Answers may contradict what was learned, because one of the clocks was set or because
   one answer is wrong: until enough of them agree which it is, a look goes by the lower of the two
   offsets (`least_clock_offset`), so that it comes too late rather than too early. Decisions made
   without asking the service go by the lowest offset of a whole run, which is in the ledger
   (`ClockOffsets`).
3. *A call that a killed run left* expires no later than its intent says, which was on disk before
   the call left. The loop signs first, then compares the two numbers, and hands the call out only
   if its signature expires no later than the intent allows. Otherwise the intent is recorded again
   with a later expiry, and the call waits for that commit. However long the disk takes, the
   process is held up, or the call waits for a thread, and whatever the clocks do meanwhile, both
   numbers stay as they are.
4. *The run's sign of life* bounds the same calls once more (`expiry_after_death`), and the later of
   the two bounds holds; an intent without an expiry has only this one. The last commit recorded
   it: the time when that commit began, before waiting for the disk, plus the time that the commit
   before it took. No call is signed later than `ALIVE_SECONDS` after it without a new commit. The
   highest offset that any call was signed with up to then (`most_clock_offset`) is written with
   it, and a call expires no later than `last_expiry` says.
5. *No expiry is believed beyond `latest_expiry`*, neither a new one nor one on record. This does
   not weaken 1 to 4. If our clock has not been set since the call was signed, the call was signed
   before now, with an offset of at most `CLOCK_BOUND_SECONDS`. If our clock has been set since, the
   call began before now by the service's clock, which is at most that far ahead of ours now;
   otherwise no call is made. Either way the call expires by now + the bound + its time + the
   margins of `last_expiry`. Its time is the longest of any run on record, because an earlier run
   may have allowed its calls more than this one does. An expiry beyond that comes from a version
   that believed any `Date`, or is an intent's margin. It is cut to the bound once, when a command
   begins to write, and comes nearer from then on. A signature by such a `Date` may be valid for
   years; what ends its call is the connection, which is gone with the process that made it. A
   worker of Dask may outlive the run. It goes by the deadline that came with the call.

Not covered: a service whose answers agree on a wrong time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

DEFAULT_TIMEOUT = 60.0
"""Seconds that a whole call may take by default."""

DEFAULT_SETTLE_AFTER = 10.0
"""Seconds after the expiry of its signature in which a call may still be applied, by default."""

SIGNED_BEYOND_SECONDS = 2.0
"""Seconds from the end of a call's time to its signature's expiry: the time it may take to begin on
another thread, and to be judged."""

ROUNDING_SECONDS = 1.0
"""A signature names whole seconds, rounded up."""

CLOCK_ERROR_SECONDS = 1.0
"""How far off the estimate of the service's clock may be."""

ALIVE_SECONDS = 1.0
"""No call leaves later than this after the sign of life in its run's last commit."""

INTENT_SECONDS = 2.0
"""How long a call has to leave after its intent is recorded, beyond what a commit takes; after that
its intent is renewed."""

CLOCK_BOUND_SECONDS = 900.0
"""How far the service's clock may be from ours; if it is farther, nothing is signed. No maintained
clock drifts that far, and a quarter of an hour is an acceptable wait."""

DELETING_SECONDS = 3600.0
"""How long after it was recorded a `delete` call can no longer remove a face: its rounds, refusals
and signatures are over by then."""

APPLYING_SECONDS = 60.0
"""How far a copy's time may be outside its attempt's, beyond all of this: the service takes time to
apply a call, and clocks may have been set since."""


def signed_until(now: float, *, left: float) -> int:
    """The expiry to sign a call with that has `left` seconds to its deadline: whole seconds."""
    return math.ceil(now + left + SIGNED_BEYOND_SECONDS)


def settled_from(expires: float | None, *, settle_after: float, lag: float = 0.0) -> float:
    """The time by the estimated service clock from which a look shows every call that arrived in
    time, in a library that shows a new face `lag` seconds late. `expires` is None if no call was
    made."""
    return (expires or 0.0) + CLOCK_ERROR_SECONDS + settle_after + lag


def look_again_after(*, settle_after: float, lag: float) -> float:
    """Seconds from a look that finds nothing to the one that confirms it."""
    return 2 * max(settle_after, 1.0) + 2 * lag


def absent_from(expires: float | None, *, settle_after: float, lag: float) -> float:
    """When one look that finds nothing proves as much as a run's two: that nothing was added."""
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
