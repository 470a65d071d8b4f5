"""What a run is to do, and the parts that do it, put together."""

from __future__ import annotations

from dataclasses import dataclass, replace

from enroll.facesearch import FaceSearch
from enroll.ledger import Ledger, ScanCache
from enroll.limiter.limits import Limiter
from enroll.manifest.scan import Scan
from enroll.model import SendAs
from enroll.photos import PhotoStore
from enroll.run.feed import Feed
from enroll.run.health import CredentialRefresh, PhotoRootCheck, Reachability
from enroll.run.job import People
from enroll.run.journal import Journal
from enroll.run.lookups import Lookups
from enroll.run.planner import Planner
from enroll.run.reconcile import Reconciler
from enroll.run.sample import Sample
from enroll.run.sender import Sender
from enroll.run.tasks import Tasks
from enroll.run.transitions import Policy
from enroll.run.unknown_faces import Trust, UnknownFaces
from enroll.session.tally import Observer, Tally
from enroll.settings import Preparation


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a run is to do: the settings that its loop and its parts go by.

    `store` has the photos; `limit` is the most rows to process; `sample` draws the rows of a trial.
    `give_up_after`, `drain`, `settle_after` and `max_duration` are seconds; `until` is when the run
    has to end (monotonic). With `reread` every photo is read, even if its file looks unchanged.
    `trust` says how far the ledger is believed to know the library.
    """

    run: int
    group_id: str
    store: PhotoStore
    policy: Policy
    send_as: SendAs
    preparation: Preparation
    limit: int | None
    sample: Sample | None
    give_up_after: float
    drain: float
    settle_after: float
    max_duration: float
    until: float
    reread: bool
    trust: Trust


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts of a run, each of which does one thing; the loop calls them in turn."""

    tasks: Tasks
    limiter: Limiter
    journal: Journal
    reach: Reachability
    people: People
    feed: Feed
    sender: Sender
    lookups: Lookups
    reconciler: Reconciler
    unknown_faces: UnknownFaces
    planner: Planner

    @property
    def in_flight(self) -> int:
        """Calls that are being made."""
        return self.sender.in_flight + self.lookups.in_flight

    @property
    def only_doubts_left(self) -> bool:
        """Whether no row is on its way, so that no further face will be enrolled."""
        return self.feed.all_planned and not (self.sender.backlog or self.sender.under_way)

    @property
    def all_settled(self) -> bool:
        """Whether every row has its outcome, and no face is being looked for."""
        return self.feed.all_planned and not (self.people or len(self.reconciler))

    def free_person(self, user_id: str) -> None:
        """A person's face is settled: read the rows next that have waited for that."""
        for job in self.people.free(user_id):
            self.feed.read_later(job)


def assemble(
    work: Work,
    *,
    ledger: Ledger,
    service: FaceSearch,
    credentials: CredentialRefresh,
    tasks: Tasks,
    scan: Scan,
    scan_cache: ScanCache,
    limiter: Limiter,
    observer: Observer,
    tally: Tally,
) -> Parts:
    """Put a run's parts together. `tally` may have counted calls already; `credentials` are those
    that `service` signs with."""
    people, photo_root = People(), PhotoRootCheck(work.store, ledger)
    reach = Reachability(make_room=service.let_go)
    journal = Journal(
        ledger, work.run, tally, observer, scan_cache, offsets=lambda: service.clock.offsets
    )
    feed = Feed(
        scan,
        journal,
        tasks,
        scan_cache=scan_cache,
        photo_root=photo_root,
        policy=work.policy,
        preparation=work.preparation,
        limit=work.limit,
        reread=work.reread,
        sample=work.sample,
    )
    sender = Sender(
        service,
        tasks,
        journal,
        limiter,
        reach=reach,
        group_id=work.group_id,
        send_as=work.send_as,
        policy=work.policy,
        refresh=credentials,
    )
    lookups = Lookups(
        service,
        tasks,
        journal,
        limiter,
        reach=reach,
        group_id=work.group_id,
        send_as=work.send_as,
        preparation=replace(work.preparation, convert=True, accept_truncated=True),
        refresh=credentials,
    )
    unknown_faces = UnknownFaces(lookups, journal, trust=work.trust)
    planner = Planner(
        journal,
        people,
        photo_root,
        tasks=tasks,
        unknown_faces=unknown_faces,
        policy=work.policy,
    )
    return Parts(
        tasks=tasks,
        limiter=limiter,
        journal=journal,
        reach=reach,
        people=people,
        feed=feed,
        sender=sender,
        lookups=lookups,
        reconciler=Reconciler(lookups, journal, settle_after=work.settle_after),
        unknown_faces=unknown_faces,
        planner=planner,
    )
