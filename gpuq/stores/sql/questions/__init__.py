"""SQL that a person writes: answered by the database's own rights, in a process that can be limited and ended.

    ask.answer(database, report_url, sql, limit=…)   the answer as JSON text, in a file without a name
    report_role.make(url) / excess(url)              PostgreSQL's login that may read the views and nothing else

In and out: the text of a statement, and the text of its answer. `reading_process` and the two modules beside it are a
program of their own, which imports nothing of gpuq. May import: `core`, `schema`, `gpuq.errors`.
"""
