"""Commands about trust: keys, signatures."""

import os
from pathlib import Path
from typing import Annotated

import typer

from components.cli.shared import app, say
from components.core.errors import SettingsError

keys_app = typer.Typer(help="Keys that sign bundles.", no_args_is_help=True)
app.add_typer(keys_app, name="keys")


@keys_app.command("new", epilog="Example: loupe keys new /etc/loupe/sign.key")
def keys_new(
    place: Annotated[Path, typer.Argument(help="The private key's file; its public half is FILE.pub.")],
) -> None:
    """Make a pair of ed25519 keys: the private one signs, the public one is given to the line's computers."""
    from components.core.signing import SIGN, TRUST, new_keys

    public, name = new_keys(place)
    say(f"key {name}: {place} signs ({SIGN}) and stays secret; {public} is what scorers trust ({TRUST})")


@app.command(epilog="Example: loupe sign runs/photos/bundle --key /etc/loupe/sign.key")
def sign(
    bundle: Annotated[Path, typer.Argument(help="A bundle folder.")],
    key: Annotated[Path | None, typer.Option(help="The private key; default: LOUPE_SIGN_KEY.")] = None,
) -> None:
    """Sign a bundle: what is in its folder now, file by file."""
    from components.core.signing import SIGN
    from components.core.signing import sign as signed
    from components.decision.bundle import whole

    if key is None and not os.environ.get(SIGN):
        raise SettingsError(f"name the private key with --key or {SIGN}; `loupe keys new` makes one")
    whole(bundle)  # what was changed since export is not signed
    say(f"{bundle}: signed by key {signed(bundle, key or Path(os.environ[SIGN]))}")


@app.command(epilog="Example: loupe verify runs/photos/bundle --keys /etc/loupe/sign.key.pub")
def verify(
    bundle: Annotated[Path, typer.Argument(help="A bundle folder.")],
    keys: Annotated[
        Path | None, typer.Option(help="A public key or a folder of them; default: LOUPE_VERIFY_KEYS.")
    ] = None,
) -> None:
    """Say which trusted key signed a bundle, or why none did; nothing of it is loaded."""
    from components.core.signing import TRUST
    from components.core.signing import verify as verified

    if keys is not None:
        os.environ[TRUST] = str(keys)
    if not os.environ.get(TRUST):
        raise SettingsError(f"name the trusted public keys with --keys or {TRUST}")
    say(f"{bundle}: signed by key {verified(bundle)}, and every file is as it was signed")
