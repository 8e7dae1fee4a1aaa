"""The session folders: opened and checked as a run opens them, every one of them."""

from __future__ import annotations

from collections.abc import Iterator

from polarjax.core import DataError
from polarjax.data.checks import check_together
from polarjax.data.sessions import Session, find_sessions, list_folders, open_session
from polarjax.doctor.findings import FAIL, OK, WARN, Finding


def check_sessions(text: str) -> Iterator[Finding]:
    """Opens each session, then compares them with each other.

    Args:
      text: as in config.data.sessions.
    """
    sessions, broken = [], False
    for folder in list_folders(text):
        try:
            session = open_session(folder)
        except DataError as error:
            yield _failure(error)
            broken = True
        else:
            sessions.append(session)
            yield from _describe(session)
    try:
        if not broken:
            find_sessions(text)
        if sessions:
            check_together(tuple(sessions), [session.frame_shape for session in sessions])
    except DataError as error:
        yield _failure(error)


def _describe(session: Session) -> Iterator[Finding]:
    size = " x ".join(map(str, session.frame_shape))
    units = f"{len(session.unit_ids)} units" if session.unit_ids else "recorded without spikes"
    text = f"{session.name}: {units}, {len(session.spikes):,} bins at {session.rate_hz:g} Hz"
    yield Finding("session", OK, f"{text}, windows {size} at {session.window_pixels_per_degree:g} pixels/deg")
    for note in session.notes:
        yield Finding("session", WARN, f"{session.name}: {note}")


def _failure(error: DataError) -> Finding:
    return Finding("session", FAIL, str(error), exit_code=error.exit_code)
