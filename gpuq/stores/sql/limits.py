"""Of a transaction, what limits ask and write: several values at once, used GPU-seconds, and who changed what."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any

from gpuq.stores.sql.core import limit_statements as sql
from gpuq.stores.sql.core.rows import json_text

_HOUR_S = 3600


class SqlLimits:
    """Part of a reader and writer, which has the statements."""

    _dialect: str

    def _rows(self, statement: Any, **values: Any) -> Sequence[Any]:
        raise NotImplementedError

    def _ids(self, ids: Sequence[int] | Sequence[str]) -> Any:
        return json_text(list(ids)) if self._dialect == "sqlite" else list(ids)

    def some_values(self, keys: Collection[str]) -> dict[str, Any]:
        rows = self._rows(sql.some_values, keys=self._ids(sorted(keys)))
        return {key: json.loads(text) for key, text in rows}

    def gpu_seconds(self, since: float) -> dict[tuple[str, str | None], float]:
        rows = self._rows(sql.gpu_seconds_since, hour=int(since // _HOUR_S))
        return {(user, group or None): float(seconds) for user, group, seconds in rows}
