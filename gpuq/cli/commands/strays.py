"""`gpuq doctor --end-strays` and `--import-strays`: attempts that live and that the database does not know."""

from __future__ import annotations

from gpuq.cli.connect import say


def mend(*, import_them: bool) -> int:
    """Ends them, or imports them. Exit code 1 when one could not be. Raises AlreadyRunning for an import while a daemon
    runs."""
    from gpuq import recovery
    from gpuq.home import prepare_home
    from gpuq.settings import load

    settings, _ = load()
    prepare_home(settings.home)
    if import_them:
        told = recovery.import_all(settings)
        for stray, why in told:
            say(
                f"gpuq: {stray.text}: "
                + ("imported; `gpuq up` takes it over" if why is None else f"not imported: {why}")
            )
    else:
        told = []
        for stray in recovery.strays(settings).living():
            try:
                recovery.end(settings, stray)
            except OSError as error:
                told.append((stray, str(error)))
                say(f"gpuq: {stray.text}: not ended: {error.strerror}")
            else:
                told.append((stray, None))
                say(f"gpuq: {stray.text}: told to stop; it has {settings.kill_grace:g} s")
    if not told:
        say("gpuq: nothing runs here that is not in the database")
    return 1 if any(why is not None for _, why in told) else 0
