"""A fake of an S3-compatible store: moto's server in a process of its own. It shows the calls, not durability."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

KEYS = "[default]\naws_access_key_id = test\naws_secret_access_key = secret-of-the-test\nregion = us-east-1\n"


@dataclass(frozen=True)
class FakeS3:
    """The server's address."""

    endpoint: str

    def credentials(self, folder: Path) -> Path:
        """Write a credentials file that leads here."""
        path = folder / "s3.credentials"
        path.write_text(f"{KEYS}endpoint_url = {self.endpoint}\n")
        return path

    def make_bucket(self, name: str) -> str:
        """Make a bucket and return its URL."""
        with urlopen(Request(f"{self.endpoint}/{name}", method="PUT", headers={"Authorization": _AS}), timeout=10):
            return f"s3://{name}"

    def forget(self) -> None:
        """Remove every bucket."""
        with urlopen(Request(f"{self.endpoint}/moto-api/reset", method="POST"), timeout=10):
            pass


_AS = "AWS4-HMAC-SHA256 Credential=test/20261127/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"


@contextmanager
def fake_s3() -> Iterator[FakeS3]:
    """Run the fake while the block runs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            fake = FakeS3(f"http://127.0.0.1:{port}")
            while not _answers(fake):
                assert process.poll() is None, "moto's server did not start"
            yield fake
        finally:
            process.terminate()


def _answers(fake: FakeS3) -> bool:
    """Wait until the port is open: the kernel refuses at once, so a short pause keeps this from spinning."""
    try:
        with urlopen(f"{fake.endpoint}/moto-api/", timeout=10):
            return True
    except (URLError, OSError):
        subprocess.run(["sleep", "0.1"], check=True)
        return False
