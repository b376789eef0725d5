"""What the profile `edge` needs beside its configuration: certificates, keys. Throw-away ones."""

import base64
import json
import secrets
from pathlib import Path
from typing import Any

import trustme
import yaml
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fleet.compose import HTTP, BadEdit, find


def equip(config: dict[str, Any], folder: Path) -> None:
    """Gives a composed configuration the certificates and keys of `folder`, made if not there."""
    certificates = folder / "certs"
    if not (certificates / "sds.json").exists():
        make_certificates(certificates)
    _point_to(config, certificates)
    try:
        keys = find(config, f"{HTTP}/http_filters/keys/typed_config")
    except BadEdit:
        return
    if not keys["credentials"]:
        keys["credentials"] = read_keys(folder)


def read_keys(folder: Path) -> list[dict[str, str]]:
    """keys.yaml: a list of {key, client}. Made with one random key, which `key` holds alone."""
    file = folder / "keys.yaml"
    if not file.exists():
        key = secrets.token_urlsafe(24)
        write_secret(file, yaml.safe_dump([{"key": key, "client": "demo"}]))
        write_secret(folder / "key", key)
    found: list[dict[str, str]] = yaml.safe_load(file.read_text())
    return found


def make_certificates(folder: Path) -> None:
    """A certificate authority, a certificate for localhost, and the file that names it to Envoy."""
    folder.mkdir(parents=True, exist_ok=True)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    gateway = authority.issue_cert("localhost", "127.0.0.1")
    write_secret(folder / "gateway.key", gateway.private_key_pem.bytes().decode())
    chain = b"".join(blob.bytes() for blob in gateway.cert_chain_pems)
    (folder / "gateway.pem").write_bytes(chain)
    client = authority.issue_cert("client-1.speechemotion.test")
    write_secret(folder / "client.key", client.private_key_pem.bytes().decode())
    (folder / "client.pem").write_bytes(client.cert_chain_pems[0].bytes())
    make_token_keys(folder)
    (folder / "sds.json").write_text(json.dumps(_secrets(folder)))


def make_token_keys(folder: Path) -> None:
    """A key that signs JSON web tokens, and the set of public keys that Envoy checks them with."""
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_secret(folder / "jwt.key", pem.decode())
    point = key.public_key().public_numbers()
    coordinates = {"x": point.x, "y": point.y}
    public = {name: _base64url(value.to_bytes(32)) for name, value in coordinates.items()}
    jwk = {"kty": "EC", "crv": "P-256", "alg": "ES256", "kid": "local", "use": "sig", **public}
    (folder / "jwks.json").write_text(json.dumps({"keys": [jwk]}))


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _secrets(folder: Path) -> dict[str, Any]:
    certificate = {
        "certificate_chain": {"filename": str(folder / "gateway.pem")},
        "private_key": {"filename": str(folder / "gateway.key")},
        "watched_directory": {"path": str(folder)},
    }
    kind = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
    return {"resources": [{"@type": kind, "name": "gateway", "tls_certificate": certificate}]}


def _point_to(config: Any, certificates: Path) -> None:
    """Every path below build/fleet/certs, wherever it is, becomes one below `certificates`."""
    pairs = config.items() if isinstance(config, dict) else enumerate(config)
    for key, value in list(pairs):
        if isinstance(value, (dict, list)):
            _point_to(value, certificates)
        elif isinstance(value, str) and value.startswith("build/fleet/certs"):
            config[key] = str(certificates) + value.removeprefix("build/fleet/certs")


def write_secret(file: Path, text: str) -> None:
    """For nobody else to read."""
    file.touch(mode=0o600)
    file.chmod(0o600)  # it may have been there
    file.write_text(text)
