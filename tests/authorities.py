"""A private certificate authority, and what it signs; by openssl, in a folder of the test's."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from peers import Certificate


_CONFIG = """
[req]
prompt = no
distinguished_name = name
[name]
CN = {name}
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[leaf]
basicConstraints = CA:FALSE
subjectAltName = {host}
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""


@dataclass
class Authority:
    """A private CA in a folder: what it signs lies there as NAME.pem, with NAME.key."""

    folder: Path

    @property
    def cert(self) -> str:
        """The bundle by which it is trusted."""
        return str(self.folder / "ca.pem")

    def make(self) -> Authority:
        """Have its own certificate made."""
        self._ask("ca", "IP:127.0.0.1")
        own = ["-signkey", f"{self.folder}/ca.key"]
        self._x509("ca", "authority", "-days", "2", *own)
        return self

    @property
    def own(self) -> Certificate:
        """Its own certificate, which vouches for itself."""
        return Certificate(self.cert, f"{self.folder}/ca.key")

    def sign(self, name: str, host: str = "IP:127.0.0.1", *dates: str) -> Certificate:
        """A certificate for a host, valid for two days or between two dates."""
        self._ask(name, host)
        signed = ["-CA", self.cert, "-CAkey", f"{self.folder}/ca.key", "-set_serial", "1"]
        self._x509(name, "leaf", *(dates or ("-days", "2")), *signed)
        return Certificate(f"{self.folder}/{name}.pem", f"{self.folder}/{name}.key")

    def _ask(self, name: str, host: str) -> None:
        (self.folder / f"{name}.cnf").write_text(_CONFIG.format(name=name, host=host))
        new = ["req", "-new", "-newkey", "rsa:2048", "-nodes"]
        paths = ["-config", f"{name}.cnf", "-keyout", f"{name}.key", "-out", f"{name}.csr"]
        self._openssl(*new, *paths)

    def _x509(self, name: str, extensions: str, *options: str) -> None:
        files = ["-in", f"{name}.csr", "-out", f"{name}.pem", "-extfile", f"{name}.cnf"]
        self._openssl("x509", "-req", *files, "-extensions", extensions, *options)

    def _openssl(self, *arguments: str) -> None:
        command = ["openssl", *arguments]
        subprocess.run(command, check=True, capture_output=True, cwd=self.folder)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A private CA."""
    return Authority(tmp_path_factory.mktemp("ca")).make()


def both_in_one(certificate: Certificate, suffix: str = ".both") -> str:
    """A file with a certificate and its key."""
    path = Path(certificate.cert).with_suffix(suffix)
    path.write_text(Path(certificate.cert).read_text() + Path(certificate.key).read_text())
    return str(path)


def locked(certificate: Certificate, *, traditional: bool = False) -> Certificate:
    """The same with its key under a password, as PKCS #8 or in the form that OpenSSL had before."""
    key = str(Path(certificate.key).with_suffix(".locked"))
    command = ["openssl", "pkey", "-aes256", "-passout", "pass:open-sesame"]
    paths = ["-in", certificate.key, "-out", key, *(["-traditional"] if traditional else [])]
    subprocess.run([*command, *paths], check=True, capture_output=True)
    return Certificate(certificate.cert, key)
