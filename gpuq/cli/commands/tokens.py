"""`gpuq token`: access over TCP."""

from __future__ import annotations

from gpuq.cli.connect import connect, print_json, say
from gpuq.cli.parse.options import Args, require_text
from gpuq.cli.render import full_time, table
from gpuq.errors import UsageError


def create(args: Args) -> int:
    """Makes an access token and prints its secret, which cannot be shown again."""
    import platform

    name = require_text(args.words[0], "the name") if args.words else platform.node() or "token"
    body = {"name": name, "user": args.text("user")}
    made = connect().call("POST", "/tokens", body=body)
    if args.flag("json"):
        print_json(made)
        return 0
    print(made["token"])
    say(f"gpuq: token {made['id']} ({made['name']}) for {made['user']}; it is not shown again. Use it as GPUQ_TOKEN.")
    return 0


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
            full_time(token["created_at"]),
            full_time(token["last_used_at"]),
            full_time(token["revoked_at"]),
        ]
        for token in tokens
    ]
    print(table(("ID", "NAME", "USER", "CREATED", "LAST USED", "REVOKED"), rows) if rows else "no tokens")
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
