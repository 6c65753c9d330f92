"""Commands about trust: keys, signatures, users, the audit record."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from components.cli.shared import DEFAULT_PARAMS, AsJson, ParamsFile, app, say
from components.core.errors import DataError, SettingsError
from components.core.places import bundle_in

keys_app = typer.Typer(help="Keys that sign bundles.", no_args_is_help=True)
app.add_typer(keys_app, name="keys")
users_app = typer.Typer(help="Who may use the service, and for what.", no_args_is_help=True)
app.add_typer(users_app, name="users")
UsersFile = Annotated[
    Path | None, typer.Option("--file", help="Default: LOUPE_USERS, or service.users of params.yaml.")
]


@keys_app.command("new", epilog="Example: loupe keys new /etc/loupe/sign.key")
def keys_new(
    out: Annotated[Path, typer.Argument(metavar="FILE", help="The private key's file; its public half is FILE.pub.")],
) -> None:
    """Make a pair of ed25519 keys: the private one signs, the public one is given to the line's computers."""
    from components.core.signing import SIGN, TRUST, new_keys

    public, name = new_keys(out)
    say(f"key {name}: {out} signs ({SIGN}) and stays secret; {public} is what scorers trust ({TRUST})")


@app.command(epilog="Example: loupe sign runs/photos/bundle --key /etc/loupe/sign.key")
def sign(
    bundle: Annotated[Path, typer.Argument(help="A bundle, or the run that it is in.")],
    key: Annotated[Path | None, typer.Option(help="The private key; default: LOUPE_SIGN_KEY.")] = None,
) -> None:
    """Sign a bundle: what is in its folder now, file by file."""
    from components.core.signing import SIGN
    from components.core.signing import sign as signed
    from components.decision.bundle import whole

    if key is None and not os.environ.get(SIGN):
        raise SettingsError(f"name the private key with --key or {SIGN}; `loupe keys new` makes one")
    bundle = bundle_in(bundle)
    whole(bundle)  # what was changed since export is not signed
    say(f"{bundle}: signed by key {signed(bundle, key or Path(os.environ[SIGN]))}")


@app.command(epilog="Example: loupe verify runs/photos/bundle --keys /etc/loupe/sign.key.pub")
def verify(
    bundle: Annotated[Path, typer.Argument(help="A bundle, or the run that it is in.")],
    keys: Annotated[
        Path | None, typer.Option(help="A public key or a folder of them; default: LOUPE_VERIFY_KEYS.")
    ] = None,
) -> None:
    """Say which trusted key signed a bundle, or why none did; nothing of it is loaded."""
    from components.core.signing import TRUST
    from components.core.signing import verify as verified

    if not (named := str(keys or os.environ.get(TRUST, ""))):
        raise SettingsError(f"name the trusted public keys with --keys or {TRUST}")
    bundle = bundle_in(bundle)
    say(f"{bundle}: signed by key {verified(bundle, named)}, and every file is as it was signed")


def _users(file: Path | None, params: Path) -> tuple[Path, Path]:
    """The file of the users, and the audit record of the service that reads it."""
    from components.core.audit import NAME
    from components.pipeline.params import params_or_defaults
    from components.service.users import USERS, place_of

    known = params_or_defaults(params).service
    if (place := file or place_of(known.users)) is None:
        raise SettingsError(f"name the file of the users: service.users in {params}, {USERS} or --file")
    return place, Path(known.spool) / NAME


@users_app.command("add", epilog="Example: loupe users add ada --role engineer")
def users_add(
    name: Annotated[str, typer.Argument(help="The user's name, as it stands in labels and records.")],
    role: Annotated[str, typer.Option(help="viewer reads; operator labels and scores; engineer changes what serves.")],
    file: UsersFile = None,
    params: ParamsFile = DEFAULT_PARAMS,
) -> None:
    """Give somebody a token, or a new one; it is printed this once, and only its hash is kept."""
    from components.core.audit import audited
    from components.service.users import add_user, read_users

    place, log = _users(file, params)
    before = read_users(place).get(name) if place.exists() else None
    with audited(log, "users add", name, before and {"role": before.role}, {"role": role}):
        token = add_user(place, name, role)
    say(f"{name} is {role}; the token, which is not shown again:\n{token}")


@users_app.command("remove", epilog="Example: loupe users remove ada")
def users_remove(
    name: Annotated[str, typer.Argument(help="A name of `loupe users list`.")],
    file: UsersFile = None,
    params: ParamsFile = DEFAULT_PARAMS,
) -> None:
    """Take a token away; a running service knows at the next request."""
    from components.core.audit import audited
    from components.core.checks import check_known
    from components.service.users import read_users, remove_user

    place, log = _users(file, params)
    known = read_users(place)
    check_known(name, known, str(place))
    with audited(log, "users remove", name, {"role": known[name].role}):
        remove_user(place, name)
    say(f"{name} is no user any more")


@users_app.command("list", epilog="Example: loupe users list --json")
def users_list(file: UsersFile = None, as_json: AsJson = False, params: ParamsFile = DEFAULT_PARAMS) -> None:
    """List names and roles."""
    from components.service.users import read_users

    known = {name: {"role": one.role, "added": one.added} for name, one in read_users(_users(file, params)[0]).items()}
    say(json.dumps(known, indent=1) if as_json else "\n".join(f"{v['role']:9} {k}" for k, v in known.items()))


@app.command(epilog="Example: loupe audit --json")
def audit(
    head: Annotated[
        str | None, typer.Option(help="A hash that an earlier look printed: it must still be there.")
    ] = None,
    as_json: AsJson = False,
    params: ParamsFile = DEFAULT_PARAMS,
) -> None:
    """Show who did what, when and from where, and check that no line was changed; exit status 1 where one was."""
    from components.core import audit as record
    from components.pipeline.params import params_or_defaults

    known = params_or_defaults(params)
    places = [Path(folder) / record.NAME for folder in (known.registry.folder, known.service.spool)]
    found = {place: record.read(place) for place in places if place.exists()}
    lines = [{"file": str(place), **line} for place, one in found.items() for line in one.lines]
    for line in sorted(lines, key=lambda line: str(line.get("at"))):
        say(json.dumps(line) if as_json else _told(line))
    for place, one in found.items():
        if not as_json:
            say(f"{place}: {len(one.lines)} lines, the last is {one.head}")
    wrong = [f"{place}: {what}" for place, one in found.items() for what in one.wrong]
    if wrong:
        raise DataError(
            f"{'; '.join(wrong)}: was changed, or stands behind one that was; look who could write the file"
        )
    if head and not any(head in one.heads for one in found.values()):
        raise DataError(f"{head}: is the hash of no line any more; the end of an audit record was cut off")


def _told(line: dict[str, object]) -> str:
    more = {key: line[key] for key in ("before", "after", "why", "role", "torn") if key in line}
    said = [line.get(key, "?") for key in ("at", "who", "from", "what", "about", "state")]
    return "  ".join([*map(str, said), json.dumps(more, ensure_ascii=False)])
