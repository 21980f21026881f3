"""The epoch that this process believes in: the hot store is warm only if it carries exactly this one."""

from __future__ import annotations

from gpuq.domain.installation_keys import InstallationKey
from gpuq.ports.records import Records


class EpochCell:
    """Read from SQL once and after every doubt; set by rehydration. Any thread."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._value: str | None = None

    def get(self) -> str | None:
        """The epoch, read from the database the first time."""
        if self._value is None:
            self.refresh()
        return self._value

    def refresh(self) -> str | None:
        """What SQL says now; another process may have rebuilt the store."""
        with self._records.read() as tx:
            self._value = tx.value(InstallationKey.EPOCH)
        return self._value

    def set(self, epoch: str) -> None:
        self._value = epoch
