"""The driver's errors as ours. No message holds a password, or more of the data than the caller gave."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg_pool import PoolClosed, PoolTimeout

from sift_store.deadline import Deadline
from sift_store.errors import AccessError, DeadlineError, NotFoundError, SiftStoreError, StorageError, StoreClosedError

__all__ = ["driver_errors", "is_transient"]

# SQLSTATEs after which the same read may well succeed: the server stops, starts or has no room, a deadlock was broken.
_TRANSIENT = {"57P01", "57P02", "57P03", "53300", "40001", "40P01"}
# What a server says when it will not have a connection; the driver knows no SQLSTATE then.
_NO_DATABASE = re.compile(r"database .* does not exist")
_FINAL = ("does not exist", "authentication failed", "no pg_hba.conf entry", "permission denied", "is not permitted")
_CODING = (UnicodeEncodeError, UnicodeDecodeError)
_REFUSED = ("28P01", "28000", "42501")
_MENDS = {
    "28P01": "check the password (or PGPASSWORD)",
    "28000": "check the role, and what pg_hba.conf allows",
    "42501": "grant the role what is missing",
    "53100": "free some disk on the server",
    "53300": "use a smaller pool, or raise max_connections",
    "57P01": "the server is stopping; try again",
    "57P03": "the server is starting; try again",
}


def is_transient(error: BaseException) -> bool:
    """Whether a read that failed so may be tried again: the connection was lost, or the server asks for patience."""
    if isinstance(error, PoolTimeout | PoolClosed):
        return False
    if isinstance(error, psycopg.InterfaceError | psycopg.OperationalError):
        state = error.sqlstate
        if state is None:
            return not any(said in str(error) for said in _FINAL)
        return state in _TRANSIENT or state.startswith("08")
    return False


@contextmanager
def driver_errors(doing: str, deadline: Deadline | None = None) -> Iterator[None]:
    """Turn what the driver raises into the tree of `sift_store.errors`, most specific first.

    Raises:
        DeadlineError: the statement was stopped because its time was over. NotFoundError: no such database.
        StoreClosedError: the pool is closed. AccessError: the role is refused. StorageError: all else.
    """
    try:
        yield
    except SiftStoreError:
        raise
    except psycopg.errors.QueryCanceled as exc:
        raise _timeout(doing, deadline) from exc
    except PoolTimeout as exc:
        raise StorageError(f"{doing}: no connection came free in time; use a larger pool, or fewer searches") from exc
    except PoolClosed as exc:
        raise StoreClosedError("the store is closed; open it again") from exc
    except psycopg.errors.InvalidCatalogName as exc:
        raise NotFoundError(f"{doing}: {_message(exc)}; create it first") from exc
    except UnicodeError as exc:
        raise StorageError(
            f"{doing}: the connection's encoding {exc.encoding if isinstance(exc, _CODING) else ''} cannot hold the "
            "text; make the client's connections with client_encoding=utf8"
        ) from exc
    except psycopg.Error as exc:
        state = exc.sqlstate or ""
        if _NO_DATABASE.search(_message(exc)):
            raise NotFoundError(f"{doing}: {_message(exc)}; create it first") from exc
        if state in _REFUSED:
            raise AccessError(f"{doing}: {_message(exc)}; {_MENDS[state]}") from exc
        mend = _MENDS.get(state) or ("try again, or see whether the server is up" if is_transient(exc) else "")
        raise StorageError(f"{doing}: {_message(exc)}{'; ' + mend if mend else ''}") from exc


def _timeout(doing: str, deadline: Deadline | None) -> DeadlineError:
    if deadline is None:
        return DeadlineError(f"{doing}: the server stopped the statement; give more time with timeout=")
    return deadline.error()


def _message(exc: psycopg.Error) -> str:
    """What the server said, in one line; nothing of the details, which quote data."""
    said = exc.diag.message_primary or str(exc) or type(exc).__name__
    return " ".join(said.split())
