"""One's own address, however it is found out."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator

import pytest

from clusterkit.cluster.cloud import door
from clusterkit.errors import ClusterError


def page(answers: dict[str, str | Exception]) -> Callable[[str], str]:
    def read(address: str) -> str:
        answer = next(one for part, one in answers.items() if part in address)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return read


def test_a_page_is_asked() -> None:
    found = door.own("auto", "public", "", read=page({"amazonaws": "8.8.4.4\n"}))
    assert found.cidr == "8.8.4.4/32"
    assert "checkip.amazonaws.com" in found.how


@pytest.mark.parametrize(
    "bad",
    [
        OSError("unreachable"),
        "<html>log in here</html>",
        "10.1.2.3",
        "127.0.0.1",
        "2001:db8::1",
        "",
    ],
)
def test_another_page_is_asked_when_the_first_makes_no_sense(bad: str | Exception) -> None:
    found = door.own("auto", "public", "", read=page({"amazonaws": bad, "ipify": "8.8.4.4"}))
    assert found.cidr == "8.8.4.4/32"
    assert "ipify" in found.how


def test_when_no_page_answers_the_settings_are_named() -> None:
    with pytest.raises(ClusterError) as caught:
        door.own("auto", "public", "", read=page({"": OSError("no route")}))
    for words in ("own_address", "allow", "--allow", "no route", "amazonaws", "ipify"):
        assert words in str(caught.value)


def test_an_address_of_the_settings_is_taken_as_it_is() -> None:
    def nobody(_: str) -> str:
        raise AssertionError("nobody is to be asked")

    found = door.own("203.0.113.7", "public", "", read=nobody)
    assert (found.cidr, found.how) == ("203.0.113.7/32", "of the settings")


def test_ones_own_page_may_answer_a_private_address_inside_a_network() -> None:
    read = page({"inside": "10.0.0.9"})
    assert door.own("https://inside/ip", "private", "", read=read).cidr == "10.0.0.9/32"
    with pytest.raises(ClusterError, match="no address of the Internet"):
        door.own("https://inside/ip", "public", "", read=read)


@pytest.mark.parametrize("towards", ["127.0.0.1", "127.0.0.0/8"])
def test_the_address_on_the_way_to_the_machines(towards: str) -> None:
    found = door.own("auto", "private", towards)
    assert found.cidr == "127.0.0.1/32"
    assert towards in found.how


@pytest.mark.parametrize("towards", ["", "somewhere"])
def test_no_way_to_the_machines(towards: str) -> None:
    with pytest.raises(ClusterError, match="own_address"):
        door.own("auto", "private", towards)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A page on this machine; a proxy that is set is not there."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(404 if self.path == "/gone" else 200)
            self.end_headers()
            self.wfile.write(b"198.51.100.4\n" if self.path == "/ip" else b"x" * 10_000)

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    httpd = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def test_a_real_page_is_asked_directly(server: str) -> None:
    assert door.own(f"{server}/ip", "private", "").cidr == "198.51.100.4/32"
    with pytest.raises(ClusterError, match="404"):
        door.own(f"{server}/gone", "private", "")
    with pytest.raises(ClusterError, match="no IPv4 address"):
        door.own(f"{server}/long", "private", "")
