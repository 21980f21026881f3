"""A part of a transaction that can be undone by itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gpuq.stores.sql.core.errors import told_as_our_own


@contextmanager
def undoable(driver: Any, driver_error: type[Exception]) -> Iterator[None]:
    """What the block writes is undone when it raises, and the transaction goes on. `driver` is the driver's connection.
    Where the transaction is gone (a full disk, a lost connection), that is raised, and nothing goes on."""
    driver.execute("SAVEPOINT part")
    try:
        with told_as_our_own(driver_error):
            yield
    except BaseException:
        driver.execute("ROLLBACK TO SAVEPOINT part")
        raise
    finally:
        driver.execute("RELEASE SAVEPOINT part")
