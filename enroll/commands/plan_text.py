"""What `enroll plan` prints."""

from __future__ import annotations

from collections.abc import Iterator

from enroll.commands.plan import Drawn, Plan
from enroll.run.sample import likely_count
from enroll.text.remedies import what_to_do
from enroll.text.wording import (
    amount,
    columns,
    counted,
    doubtful_lines,
    duration,
    error_table,
    facts,
    size,
)


def plan_lines(plan: Plan) -> list[str]:
    """The plan as lines, a blank one between its parts."""
    return [line for part in _parts(plan) for line in [*part, ""] if part][:-1]


def _parts(plan: Plan) -> Iterator[list[str]]:
    yield [
        f"Planned from {plan.manifest.path}, {amount(plan.rows, 'row')}; nothing was called.",
        *(f"Note: {note}" for note in plan.notes),
    ]
    bad = sum(plan.faults.values())
    yield counted(
        {
            "due": plan.due,
            "touched since, to be read and compared": plan.to_read,
            "already enrolled": plan.enrolled,
            "not to be sent (below)": bad,
        }
    )
    if plan.drawn is not None:
        yield list(_drawn(plan.drawn))
    if plan.portions:
        yield [
            "What is done to the photos, how many, bytes before and "
            + ("after" if plan.full else "(about) after"),
            *_portions(plan),
        ]
    errors = [
        (status.value, str(code), count, plan.examples.get(code, ""))
        for (status, code), count in plan.faults.most_common()
    ]
    if errors:
        yield ["Not to be sent, how often, and what to do", *error_table(errors)]
    yield list(doubtful_lines(plan.doubtful, "sent anyway"))
    yield list(_remarks(plan))
    yield facts(
        [
            ("Calls", ", ".join([*(f"1 {kind}" for kind in plan.opening), _calls(plan)])),
            ("To send", _to_send(plan)),
            (
                "Time",
                f"{_about(plan)}{duration(plan.seconds)} at {plan.rate.calls_per_second:.1f} calls "
                f"a second ({plan.rate.source})",
            ),
            ("Photos", plan.store.root),
            ("Ledger", str(plan.ledger) if plan.ledger else "none yet"),
            *([("Report", str(plan.report))] if plan.report else []),
        ]
    )


def _about(plan: Plan) -> str:
    return "" if plan.drawn is None else "about "


def _calls(plan: Plan) -> str:
    drawn = plan.drawn
    if drawn is None:
        return f"{plan.calls:,} add"
    return f"{likely_count(drawn.calls, drawn.size, drawn.of)} add"


def _to_send(plan: Plan) -> str:
    if plan.drawn is None:
        return f"{'' if plan.full else 'about '}{size(plan.content)} of photos"
    likely, low, high = plan.drawn.bytes_each.likely_sum(plan.drawn.of)
    return f"about {size(likely)} ({size(low)} to {size(high)}) of photos"


def _drawn(drawn: Drawn) -> Iterator[str]:
    """What a sample says about all photos that are due."""
    yield (
        f"A sample of {amount(drawn.size, 'photo')}, drawn from the {drawn.of:,} that are due, was "
        "read and prepared. Of all of them, with 95 % confidence:"
    )
    portions = sorted(drawn.portions.items(), key=lambda one: -one[1].photos)
    told = [(words or "sent as they are", one.photos, "") for words, one in portions]
    told += [
        (f"{status.value}, {code}", count, what_to_do(code, status, drawn.examples.get(code, "")))
        for (status, code), count in drawn.faults.most_common()
    ]
    told += [
        (f"sent, {code}", count, "looks doubtful") for code, count in sorted(drawn.doubtful.items())
    ]
    cells = [
        (words, likely_count(count, drawn.size, drawn.of), hint) for words, count, hint in told
    ]
    yield from (f"  {line}" for line in columns(cells))


def _portions(plan: Plan) -> list[str]:
    portions = sorted(plan.portions.items(), key=lambda one: -one[1].photos)
    cells = [
        (words or "sent as they are", f"{one.photos:,}", size(one.before), size(one.after))
        for words, one in portions
    ]
    return [f"  {line}" for line in columns(cells)]


def _remarks(plan: Plan) -> Iterator[str]:
    if plan.doubts:
        are = "is" if plan.doubts == 1 else "are"
        yield (
            f"{amount(plan.doubts, 'face')} in doubt {are} settled first, with list or search "
            "calls that are not counted here."
        )
    if plan.people_known:
        yield (
            f"{amount(plan.people_known, 'due row')} of people who already have a face: a photo "
            "that was only moved or renamed is recognised when it is read, and costs no call."
        )
    if plan.shared:
        yield (
            f"{amount(plan.shared, 'photo')} under more than one user_id: each would be "
            "enrolled for each; check them."
        )
    if plan.user_data_changed:
        yield (
            f"{amount(plan.user_data_changed, 'enrolled row')} whose user_data differs from the "
            "library's: left as enrolled, because the service cannot update it."
        )
    if plan.gone:
        yield f"{amount(plan.gone, 'enrolled row')} whose photo is no longer there."
