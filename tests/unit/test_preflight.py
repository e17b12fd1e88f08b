"""The one free call before anything is queued, against servers that answer it in every way."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from askq.errors import ApiUnreachable, AskqError, ConfigError
from producer.api import Api
from producer.preflight import check
from tests.parts import free_port


@contextmanager
def answering(reply: bytes) -> Iterator[str]:
    """A server that reads a request and answers with these bytes; its base URL."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(20)

        def serve() -> None:
            with listening.accept()[0] as client:
                client.settimeout(20)
                request = b""
                while b"\r\n\r\n" not in request:
                    request += client.recv(4096)
                client.sendall(reply)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        thread.join(20)
        assert not thread.is_alive()


def http(status: str, body: bytes) -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (status.encode(), len(body), body)


def refused(base_url: str) -> AskqError:
    with pytest.raises(AskqError) as caught:
        check(Api(base_url, "sk-secret-secret", "account"))
    assert "sk-secret" not in str(caught.value)
    assert "nothing was queued" in str(caught.value)
    assert "\n" not in caught.value.message
    return caught.value


@pytest.mark.parametrize(
    "reply",
    [
        http("200 OK", b'{"object": "list", "data": []}'),
        http("404 Not Found", b"Not Found"),
        http("405 Method Not Allowed", b"{}"),
        http("429 Too Many Requests", b"{}"),
    ],
    ids=lambda reply: reply.split(b"\r\n")[0].decode(),
)
def test_a_server_that_is_there(reply: bytes) -> None:
    with answering(reply) as base_url:
        check(Api(base_url, "sk-secret-secret", "account"))


@pytest.mark.parametrize(
    ("reply", "kind", "told"),
    [
        (http("401 Unauthorized", b'{"error": {"message": "Incorrect key"}}'), ConfigError, "401): Incorrect key"),
        (http("403 Forbidden", b"<html>no</html>"), ConfigError, "(HTTP 403): no reason given"),
        (http("401 Unauthorized", b'{"error": "no"}'), ConfigError, "(HTTP 401): no reason given"),
        (http("502 Bad Gateway", b"<html>"), ApiUnreachable, "answers with HTTP 502"),
        (http("200 OK", b"<html><title>Log in</title></html>"), ApiUnreachable, "its list of models is no JSON"),
        (http("200 OK", b""), ApiUnreachable, "its list of models is no JSON"),
        (http("200 OK", b'{"data": ['), ApiUnreachable, "its list of models is no JSON"),
        (b"-ERR unknown command\r\n", ApiUnreachable, "does not answer: -ERR unknown command"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{", ApiUnreachable, "its list of models is no JSON"),
        (b"", ApiUnreachable, "does not answer"),
    ],
)
def test_what_is_wrong_is_said(reply: bytes, kind: Callable[..., AskqError], told: str) -> None:
    with answering(reply) as base_url:
        error = refused(base_url)
    assert type(error) is kind
    assert told in str(error)


def test_nobody_there() -> None:
    error = refused(f"http://127.0.0.1:{free_port()}/v1")
    assert type(error) is ApiUnreachable
    assert "Check the network and OPENAI_BASE_URL" in str(error)


@contextmanager
def listening(replies: list[bytes]) -> Iterator[tuple[str, list[bytes]]]:
    """A server that gives these replies, one for each connection; its base URL, and the requests it gets."""
    requests: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)

        def serve() -> None:
            for reply in replies:
                with server.accept()[0] as client:
                    client.settimeout(20)
                    request = b""
                    while b"\r\n\r\n" not in request:
                        request += client.recv(4096)
                    requests.append(request)
                    client.sendall(reply)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}", requests
        thread.join(20)
        assert not thread.is_alive()


def moved(url: str) -> bytes:
    return f"HTTP/1.1 302 Found\r\nLocation: {url}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()


def test_a_redirection_gives_the_key_to_nobody_else() -> None:
    good = http("200 OK", b"{}")
    with listening([good]) as (elsewhere, theirs), listening([moved(f"http://{elsewhere}/v1/models")]) as (here, ours):
        check(Api(f"http://{here}/v1", "sk-secret-secret", "account"))
    assert b"Authorization: Bearer sk-secret-secret" in ours[0]
    assert b"sk-secret" not in theirs[0]
    with listening([moved("/v1/models/"), good]) as (here, ours):
        check(Api(f"http://{here}/v1", "sk-secret-secret", "account"))
    assert all(b"Authorization: Bearer sk-secret-secret" in request for request in ours)


def test_a_password_in_the_address_is_used_and_not_shown() -> None:
    with listening([http("200 OK", b"{}")]) as (here, ours):
        check(Api(f"http://me:can%61ry@{here}/v1", "sk-secret-secret", "account"))
    assert b"Authorization: Basic bWU6Y2FuYXJ5\r\n" in ours[0]
    assert f"Host: {here}\r\n".encode() in ours[0]
    error = refused(f"http://me:canary@127.0.0.1:{free_port()}/v1")
    assert "canary" not in str(error)


def test_a_server_that_repeats_the_key() -> None:
    with answering(http("401 Unauthorized", b'{"error": {"message": "no sk-secret-secret\\nhere"}}')) as base_url:
        assert "no … here" in str(refused(base_url))
