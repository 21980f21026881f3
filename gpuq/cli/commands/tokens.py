"""`gpuq token`: access over TCP."""

from __future__ import annotations

from gpuq.cli.connect import connect, print_json, say
from gpuq.cli.parse.options import Args, require_text
from gpuq.cli.render import full_time, table
from gpuq.domain.quantities import parse_duration
from gpuq.errors import UsageError

SCOPES = ("read", "submit", "admin")
LONGEST_S = 10 * 365 * 86400


def create(args: Args) -> int:
    """Makes an access token and prints its secret, which cannot be shown again."""
    import platform

    name = require_text(args.words[0], "the name") if args.words else platform.node() or "token"
    body: dict[str, str | float | None] = {"name": name, "user": args.text("user")}
    if scope := args.text("scope"):
        body["scope"] = _scope(scope)
    if expires := args.text("expires"):
        body["expires_in_s"] = "never" if expires == "never" else _seconds(expires)
    made = connect().call("POST", "/tokens", body=body)
    if args.flag("json"):
        print_json(made)
        return 0
    print(made["token"])
    good = ""
    # A daemon of release 0.1, which runs on until it is restarted, knows neither scope nor end.
    if "scope" in made:
        until = f"until {full_time(made['expires_at'])}" if made["expires_at"] else "for ever"
        good = f", scope {made['scope']}, {until}"
    say(f"gpuq: token {made['id']} ({made['name']}) for {made['user']}{good}; it is not shown again.")
    say("gpuq: use it as GPUQ_TOKEN")
    return 0


def _scope(text: str) -> str:
    if text not in SCOPES:
        raise UsageError(f"--scope: unknown scope {text!r}", hint=f"use {', '.join(SCOPES)}")
    return text


def _seconds(text: str) -> float:
    seconds = parse_duration(text)
    if not 0 < seconds <= LONGEST_S:
        raise UsageError(f"--expires: {text!r} is nothing, or more than ten years", hint="write 90d, or never (root)")
    return seconds


def show_all(args: Args) -> int:
    """Prints the access tokens, without their secrets."""
    tokens = connect().call("GET", "/tokens")
    if args.flag("json"):
        print_json(tokens)
        return 0
    rows = [
        [
            str(token["id"]),
            token["name"],
            token["user"],
            token.get("scope", ""),
            full_time(token["created_at"]),
            full_time(token.get("expires_at")) or "never",
            full_time(token["last_used_at"]),
            full_time(token["revoked_at"]),
        ]
        for token in tokens
    ]
    head = ("ID", "NAME", "USER", "SCOPE", "CREATED", "EXPIRES", "LAST USED", "REVOKED")
    print(table(head, rows) if rows else "no tokens")
    return 0


def revoke(args: Args) -> int:
    """Revokes the tokens with these ids. Raises UsageError for a word that is not a number, before any is revoked."""
    ids = [word for words in args.words for word in words.split(",") if word]
    wrong = [word for word in ids if not (word.isascii() and word.isdigit())]
    if wrong:
        raise UsageError(f"{wrong[0]!r} is not the id of a token", hint="`gpuq token list` shows them")
    client = connect()
    for token_id in ids:
        client.call("DELETE", f"/tokens/{token_id}")
        print(f"token {token_id} is revoked")
    return 0
