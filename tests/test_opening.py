"""The opening calls of a run: what is waited for, for how long, and what is told at once."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from pathlib import Path

import pytest
from archive import GROUP, Archive, Told
from cases import cases
from moved_clock import MovedClock, standin
from real_command import SECONDS
from scarce import no_file_left

from enroll.commands.adopt import AdoptSettings, adopt
from enroll.commands.forget import ForgetSettings, forget
from enroll.commands.library import create_library, delete_library, describe_library
from enroll.commands.remove import RemoveSettings, remove
from enroll.commands.resolve import ResolveSettings, resolve
from enroll.commands.run import Screen, enroll_manifest
from enroll.commands.run_closing import Report
from enroll.commands.verify import VerifySettings, verify
from enroll.errors import ExitCode, ServiceError, ShortageError, UnreachedError
from enroll.facesearch import Call, client
from enroll.model import Answer, CallKind, Verdict
from enroll.session import account, retry
from enroll.session.account import Connection, Patience, connect, list_libraries
from enroll.session.caller import Caller
from enroll.settings import CallSettings

pytestmark = pytest.mark.usefixtures("moved_clock")


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(client, "TRYING_SECONDS", 0.01)


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with standin(detect=False) as box:
        box.create_library(GROUP)
        there = Archive(tmp_path, box)
        there.people(1)
        yield there


class Listener(Screen):
    """Remembers what was said before the run began."""

    def __init__(self, *, attended: bool = False) -> None:
        self.attended = attended
        self.said: list[str] = []

    def unreached(self, seconds: float, code: str, because: str) -> None:
        self.said.append(f"unreached: {because}")

    def reached(self) -> None:
        self.said.append("reached")

    def waits(self, what: str) -> None:
        self.said.append(f"waits for {what}")


def run(archive: Archive, screen: Screen | None = None, **changed: object) -> Report:
    return enroll_manifest(archive.settings(**changed), lambda: archive.credentials, screen=screen)


@pytest.mark.parametrize("call", ["group_list", "list"])
def test_a_refused_opening_call_is_made_again_as_often_as_it_takes(
    archive: Archive, call: str
) -> None:
    archive.box.script(["refused"] * 6, call=call)
    assert run(archive).exit_code is ExitCode.DONE
    assert archive.box.count(call) == 7


def test_a_retry_after_that_is_longer_than_we_are_to_wait_ends_the_run_at_once(
    archive: Archive, moved_clock: MovedClock
) -> None:
    archive.box.script(["429"], call="group_list")
    with pytest.raises(
        UnreachedError, match="refused calls because of the account's limit"
    ) as refused:
        run(archive, give_up_after=0.5)
    assert refused.value.exit_code is ExitCode.UNREACHED
    assert "max-in-flight" not in str(refused.value)
    assert archive.box.count("group_list") == 1
    before = moved_clock.monotonic()
    archive.box.script(["429"], call="group_list")
    assert run(archive, give_up_after=600).exit_code is ExitCode.DONE
    assert moved_clock.monotonic() - before >= 1.0  # what the stand-in asks for


def test_a_command_without_a_run_waits_for_a_place_too(archive: Archive) -> None:
    archive.run()
    archive.box.script(["refused"] * 6, call="group_list")

    settings = VerifySettings(ledger=archive.ledger)
    found = verify(settings, lambda: archive.credentials, Told())
    assert found.exit_code is ExitCode.DONE


def test_a_service_that_is_away_at_the_start_is_waited_for_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(account, "TOLD_SECONDS", 0.0)
    store = tmp_path / "service.sqlite"
    with ExitStack() as stack:
        box = stack.enter_context(standin(detect=False, store=store))
        box.create_library(GROUP)
        archive = Archive(tmp_path, box)
        archive.people(1)
        box.stop()

        class Restart(Listener):
            def unreached(self, seconds: float, code: str, because: str) -> None:
                super().unreached(seconds, code, because)
                if len(self.said) == 5:  # more often than what seems to be a mistake is tried
                    stack.enter_context(standin(detect=False, store=store, port=box.port))

        screen = Restart()
        assert run(archive, screen).exit_code is ExitCode.DONE
    assert screen.said[0].startswith("unreached: no connection to 127.0.0.1:")
    assert "Check --endpoint and the network." in screen.said[0]
    assert screen.said[-1] == "reached"


@pytest.mark.parametrize("fault", ["502-before", "500-before", "reset-before", "timeout-before"])
def test_an_opening_call_that_comes_to_nothing_is_waited_for(archive: Archive, fault: str) -> None:
    archive.box.script([fault] * 5, call="group_list")
    assert run(archive, timeout=0.3).exit_code is ExitCode.DONE


def test_a_service_that_stays_away_is_given_up_with_exit_code_9(archive: Archive) -> None:
    archive.box.stop()
    with pytest.raises(UnreachedError, match="could not be reached for") as given_up:
        run(archive, give_up_after=0.5)
    assert given_up.value.exit_code is ExitCode.UNREACHED
    assert not archive.ledger.exists()


def opened(archive: Archive, timeout: float) -> Connection:
    return connect(
        CallSettings(timeout=timeout),
        lambda: archive.credentials,
        endpoint=archive.box.endpoint,
        patience=Patience(attended=False),
    )


def listed(archive: Archive, timeout: float) -> None:
    with opened(archive, timeout) as connection:
        list_libraries(connection)


def described(archive: Archive, timeout: float) -> None:
    with opened(archive, timeout) as connection:
        describe_library(connection, GROUP)


def deleted(archive: Archive, timeout: float) -> None:
    with opened(archive, timeout) as connection:
        delete_library(connection, group_id=GROUP, force=True, prompt=Told())


def verified(archive: Archive, timeout: float) -> None:
    settings = VerifySettings(ledger=archive.ledger, timeout=timeout)
    verify(settings, lambda: archive.credentials, Told())


def adopted(archive: Archive, timeout: float) -> None:
    run = archive.settings(timeout=timeout, ledger=archive.folder / "new.sqlite")
    adopt(AdoptSettings(run=run), lambda: archive.credentials, Told())


def resolved(archive: Archive, timeout: float) -> None:
    archive.doubt("u1")
    settings = ResolveSettings(ledger=archive.ledger, user_id="u1", token=None, timeout=timeout)
    resolve(settings, lambda: archive.credentials)


def made(archive: Archive, timeout: float) -> None:
    with opened(archive, timeout) as connection:
        create_library(
            connection, group_id="new", group_name="new", group_data="", model_version=""
        )


CALLERS: dict[str, Callable[[Archive, float], object]] = {
    "run": lambda archive, timeout: run(archive, give_up_after=0.3, timeout=timeout),
    "verify": verified,
    "adopt": adopted,
    "resolve": resolved,
    "remove": lambda archive, timeout: remove(
        RemoveSettings(ledger=archive.ledger, of_run=1, timeout=timeout),
        lambda: archive.credentials,
        Told(),
    ),
    "forget": lambda archive, timeout: forget(
        ForgetSettings(ledger=archive.ledger, people=["u1"], timeout=timeout),
        lambda: archive.credentials,
        Told(),
    ),
    "library list": listed,
    "library show": described,
    "library create": made,
    "library delete": deleted,
}


def said_of(archive: Archive, which: str, *, timeout: float = 10.0) -> ServiceError:
    """How a command ends of which no call is answered as it should be."""
    with pytest.raises(ServiceError) as ended:
        CALLERS[which](archive, timeout)
    said = str(ended.value)
    for foreign in ("checked before anything is sent", "on-code", "own word", "verify"):
        assert foreign not in said
    assert ("enroll resolve" in said, "--offline" in said) == (False, which == "resolve")
    return ended.value


@pytest.mark.parametrize("trouble", ["away", "502", "timeout"])
def test_an_outage_has_one_exit_code_and_a_remedy_that_fits_whichever_command_meets_it(
    archive: Archive, trouble: str
) -> None:
    archive.run()
    ledger = archive.ledger.read_bytes()
    if trouble == "away":
        archive.box.stop()
    where = (
        "Check --endpoint and the network." if trouble == "away" else "whether the service is up"
    )

    @cases("which", CALLERS)
    def met_by(which: str) -> None:
        archive.ledger.write_bytes(ledger)
        if trouble != "away":
            fail_opening_calls(archive, f"{trouble}-before")
        ended = said_of(archive, which, timeout=0.3 if trouble == "timeout" else 10.0)
        assert isinstance(ended, UnreachedError)
        assert ended.exit_code is ExitCode.UNREACHED
        said = str(ended)
        assert "The service could not be reached" in said
        assert "un the same command again." in said
        assert where in said

    met_by()


@pytest.mark.parametrize("trouble", ["not-json-before", "html-403", "auth"])
def test_what_waiting_does_not_mend_has_another_whichever_command_meets_it(
    archive: Archive, trouble: str
) -> None:
    archive.run()
    ledger = archive.ledger.read_bytes()
    wanted = {
        "not-json-before": "what answers there does not seem to be the service",
        "html-403": "Ask whoever runs the proxy or firewall",
        "auth": "credentials that were used",
    }

    @cases("which", CALLERS)
    def met_by(which: str) -> None:
        archive.ledger.write_bytes(ledger)
        fail_opening_calls(archive, trouble)
        ended = said_of(archive, which)
        assert not isinstance(ended, UnreachedError)
        assert ended.exit_code is ExitCode.SERVICE
        assert wanted[trouble] in str(ended)

    met_by()


def fail_opening_calls(archive: Archive, fault: str) -> None:
    for call in ("group_list", "group_info"):
        archive.box.script([fault] * 100, call=call)


@pytest.mark.parametrize("which", ["verify", "adopt"])
def test_an_outage_after_the_opening_calls_has_the_same(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    monkeypatch.setattr(retry, "FIRST_PAUSE_SECONDS", 0.001)
    archive.run()
    archive.box.script(["502-before"] * 100, call="list")
    ended = said_of(archive, which)
    assert isinstance(ended, UnreachedError)
    assert "whether the service is up" in str(ended)


def test_what_is_not_the_service_is_told_after_a_few_tries(archive: Archive) -> None:
    archive.box.script(["not-json-before"] * 9, call="group_list")
    with pytest.raises(ServiceError):
        run(archive, give_up_after=600)
    assert archive.box.count("group_list") == retry.OPENING.unknown


@pytest.mark.parametrize(("attended", "error"), [(True, ServiceError), (False, UnreachedError)])
def test_an_unknown_name_is_told_at_once_to_who_sits_at_a_terminal(
    archive: Archive, error: type[Exception], *, attended: bool
) -> None:
    with pytest.raises(error, match="no-such-host"):
        run(
            archive,
            Listener(attended=attended),
            endpoint="https://no-such-host.invalid",
            give_up_after=600 if attended else 0.5,
        )


def test_a_run_that_waits_for_the_service_says_so_and_ends_at_ctrl_c(tmp_path: Path) -> None:
    with standin(detect=False) as box:
        archive = Archive.new(tmp_path / "away", box)
        archive.crowd(1)
    with archive.command.started(*archive.arguments) as process:
        assert process.stderr is not None
        lines = [process.stderr.readline() for _ in range(3)]
        assert [line.split()[0] for line in lines[:2]] == ["Endpoint", "Account"]
        assert "The service has been away for" in lines[2]
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=SECONDS)
    assert process.returncode == ExitCode.INTERRUPTED


@pytest.fixture
def connection(archive: Archive) -> Iterator[Connection]:
    with opened(archive, 5.0) as connection:
        yield connection


def test_an_opening_call_for_which_no_file_is_left_ends_with_that_sentence(
    connection: Connection,
) -> None:
    with no_file_left(), pytest.raises(ShortageError, match="ulimit -n"):
        list_libraries(connection)
    assert not connection.tally.calls
    assert list_libraries(connection)


def test_a_later_call_for_which_no_file_is_left_is_made_when_there_is_one(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[Answer] = []
    make = connection.service.make

    def at_first_without_files(call: Call) -> Answer:
        with nullcontext() if answers else no_file_left():
            answers.append(make(call))
        return answers[-1]

    monkeypatch.setattr(connection.service, "make", at_first_without_files)
    with Caller(connection, GROUP, concurrency=2) as caller:
        assert caller.ask(Call.group_list(), policy=retry.COMMAND_ONCE) is answers[-1]
    assert [answer.verdict for answer in answers] == [Verdict.BLOCKED, Verdict.APPLIED]
    assert connection.tally.calls == {CallKind.GROUP_LIST: 1}
