"""Certificates for tests: an authority of our own, and what it gives out."""

import ssl
from pathlib import Path

import trustme


class Authority:
    """An authority and the folder that its files go to.

    Args:
        folder: Where files are written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._authority = trustme.CA()

    def root(self, name: str = "ca.pem") -> Path:
        """Its own certificate."""
        return self._write(name, self._authority.cert_pem.bytes())

    def pair(
        self, name: str = "server", *identities: str, common_name: str | None = None
    ) -> tuple[Path, Path]:
        """A certificate for these names, and its key; each file is replaced in one step."""
        made = self._authority.issue_cert(
            *(identities or ("localhost", "127.0.0.1")), common_name=common_name
        )
        chain = b"".join(blob.bytes() for blob in made.cert_chain_pems)
        return self._write(f"{name}.crt", chain), self._write(f"{name}.key", made.private_key_pem.bytes())

    def both(self, name: str, **more: str) -> Path:
        """A certificate and its key in one file."""
        certificate, key = self.pair(f".{name}", **more)
        return self._write(f"{name}.pem", certificate.read_bytes() + key.read_bytes())

    def trusting(self, own: Path | None = None) -> ssl.SSLContext:
        """A client's context that believes this authority, and shows a certificate of its own."""
        context = ssl.create_default_context(cadata=self._authority.cert_pem.bytes().decode())
        if own is not None:
            context.load_cert_chain(own)
        return context

    def _write(self, name: str, content: bytes) -> Path:
        path, new = self.folder / name, self.folder / f"{name}.new"
        new.touch(mode=0o600)
        new.write_bytes(content)
        return new.replace(path)
