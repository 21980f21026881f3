"""Client and command line over https: a real TLS server with a CA of its own, in front of the daemon's API."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme
from tls import in_front_of

from gpuq import Client, ConfigError, DaemonUnreachable
from gpuq.domain.outcome import Outcome
from gpuq.domain.states import JobState

GPUQ = str(Path(sys.executable).parent / "gpuq")


@dataclass
class Front:
    """`port`: where TLS is spoken for `localhost`; `ca`: the file of who signed that; `plain`: the daemon's port."""

    port: int
    ca: str
    token: str
    plain: int

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"


@pytest.fixture
def front(api: Any, served: Any, tmp_path: Path) -> Iterator[Front]:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    token = api.root.post("/tokens", json={"name": "laptop"}).json()["token"]
    plain = int(served.url.rpartition(":")[2])
    with in_front_of(plain, context) as port:
        yield Front(port, str(tmp_path / "ca.pem"), token, plain)


@pytest.fixture
def trusted(front: Front, monkeypatch: pytest.MonkeyPatch) -> Front:
    monkeypatch.setenv("GPUQ_CA_FILE", front.ca)
    return front


def gpuq(front: Front, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "GPUQ_SERVER": front.url, "GPUQ_TOKEN": front.token, **settings}
    return subprocess.run([GPUQ, *words], env=env, capture_output=True, text=True, timeout=60, check=False)


def test_calls_and_streams_go_over_https_when_the_ca_is_named(trusted: Front, start: Callable[..., Any]) -> None:
    with Client(server=trusted.url, token=trusted.token) as client:
        job = client.submit(["true"], env={})
        stream = client.session.listen("/events", job_id=job.id)
        assert stream is not None
        run = start(job.id)
        run.log.write_text("over TLS\n" * 20_000)
        assert stream.frames(20)
        stream.close()
        assert client.logs(job.id) == "over TLS\n" * 20_000
        run.end(Outcome.SUCCEEDED, JobState.COMPLETED, exit_code=0)
        assert client.wait(job, timeout_s=20)[0].state == "completed"
    done = gpuq(trusted, "status", "-a", "--json")
    assert (done.returncode, [job["id"] for job in json.loads(done.stdout)], done.stderr) == (0, [job.id], "")


def test_a_ca_of_the_config_file_counts_too(front: Front, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(f'server = "{front.url}"\ntoken = "{front.token}"\nca_file = "{front.ca}"\n')
    done = gpuq(front, "status", GPUQ_SERVER="", GPUQ_TOKEN="", GPUQ_CONFIG=str(tmp_path / "c.toml"))
    assert (done.returncode, done.stderr) == (0, "")


def test_a_certificate_that_nobody_known_signed_is_refused_and_the_way_out_named(front: Front) -> None:
    with Client(server=front.url, token=front.token) as client, pytest.raises(DaemonUnreachable) as refused:
        client.gpus()
    assert "its certificate is not trusted" in refused.value.message
    assert "GPUQ_CA_FILE" in str(refused.value.hint)
    done = gpuq(front, "status")
    assert (done.returncode, done.stdout) == (5, "")
    assert done.stderr == f"gpuq: {refused.value.message}\nhint: {refused.value.hint}\n"


def test_another_ca_than_the_one_that_signed_is_no_help(front: Front, tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.pem"))
    done = gpuq(front, "status", GPUQ_CA_FILE=str(tmp_path / "other.pem"))
    assert (done.returncode, "its certificate is not trusted" in done.stderr) == (5, True)


def test_a_server_of_another_name_is_refused(trusted: Front) -> None:
    url = f"https://127.0.0.1:{trusted.port}"
    with Client(server=url, token=trusted.token) as client, pytest.raises(DaemonUnreachable, match="not for the name"):
        client.gpus()
    done = gpuq(trusted, "status", GPUQ_SERVER=url)
    assert (done.returncode, "is not for the name 127.0.0.1" in done.stderr) == (5, True)


def test_a_port_without_tls_is_named_as_such(trusted: Front) -> None:
    done = gpuq(trusted, "status", GPUQ_SERVER=f"https://localhost:{trusted.plain}")
    assert done.returncode == 5
    assert "does not speak TLS" in done.stderr


@pytest.mark.parametrize(("text", "said"), [(None, "cannot be read"), ("nonsense", "no certificate")])
def test_a_file_that_is_no_ca_is_refused_before_anything_is_sent(
    front: Front, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, said: str
) -> None:
    path = tmp_path / "no.pem"
    if text is not None:
        path.write_text(text)
    monkeypatch.setenv("GPUQ_CA_FILE", str(path))
    with pytest.raises(ConfigError, match=said):
        Client(server=front.url, token=front.token)
    done = gpuq(front, "status")
    assert (done.returncode, said in done.stderr) == (2, True)


def test_a_token_in_the_clear_to_another_machine_is_told(monkeypatch: pytest.MonkeyPatch, front: Front) -> None:
    with pytest.warns(UserWarning, match="plain HTTP to another machine"):
        Client(server="http://gpubox.example.org:8100", token="t").close()
    # An address of this very machine that is none of loopback's: nobody listens there, and it is told before that.
    done = gpuq(front, "status", GPUQ_SERVER="http://0.0.0.0:1")
    assert "plain HTTP to another machine" in done.stderr
    plain = gpuq(front, "status", GPUQ_SERVER=f"http://127.0.0.1:{front.plain}")
    assert (plain.returncode, plain.stderr) == (0, "")
