from __future__ import annotations

import http.client
import io
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from glassnet._errors import UsageError, WorkError
from glassnet._version import __version__
from glassnet.data import fetch as module
from glassnet.data.fetch import (
    BrokenFileError,
    DataFile,
    broken_file,
    by_hand,
    check_md5,
    data_folders,
    fetch,
    writable_folder,
)

CONTENT = bytes(range(256)) * 4096  # 1 MiB: several chunks


def accept(path: Path) -> None:
    """Find nothing wrong with `path`."""


def everything_below(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


@pytest.mark.parametrize("announces_length", [True, False])
def test_a_download_arrives_whole_and_alone(server: Any, tmp_path: Path, announces_length: bool) -> None:
    server.files["/set/a.gz"] = CONTENT
    server.announces_length = announces_length
    target = tmp_path / "new" / "folder" / "a.gz"
    fetch(f"{server.base}/set/a.gz", target, accept)
    assert target.read_bytes() == CONTENT
    assert everything_below(target.parent) == [target]
    assert server.asked == ["/set/a.gz"]
    assert server.user_agents == [f"glassnet/{__version__}"]


def test_the_check_sees_the_whole_file_beside_the_target_before_the_target_exists(server: Any, tmp_path: Path) -> None:
    server.files["/a.gz"] = CONTENT
    target, seen = tmp_path / "a.gz", []

    def check(path: Path) -> None:
        seen.append((path.parent, path.suffix, path.read_bytes() == CONTENT, target.exists()))

    fetch(f"{server.base}/a.gz", target, check)
    assert seen == [(tmp_path, ".gz", True, False)]


def test_an_existing_file_stays_as_it_was_until_the_new_one_is_good(server: Any, tmp_path: Path) -> None:
    target = tmp_path / "a"
    target.write_bytes(b"old")
    server.files["/a"] = CONTENT
    server.cut_at["/a"] = 1000
    with pytest.raises(WorkError):
        fetch(f"{server.base}/a", target, accept)
    assert target.read_bytes() == b"old"
    server.cut_at.clear()
    fetch(f"{server.base}/a", target, accept)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("cut_at", [0, 1, 300_000, len(CONTENT) - 1])
def test_a_connection_that_ends_early_is_noticed_and_leaves_nothing(server: Any, tmp_path: Path, cut_at: int) -> None:
    server.files["/a"] = CONTENT
    server.cut_at["/a"] = cut_at
    told = (
        rf"expected to download {server.base}/a; got ({cut_at:,} of 1,048,576 bytes|a broken connection).*Download by"
    )
    with pytest.raises(WorkError, match=told):
        fetch(f"{server.base}/a", tmp_path / "new" / "a", accept)
    assert everything_below(tmp_path) == []


def test_a_missing_page_is_told_with_status_address_and_path(server: Any, tmp_path: Path) -> None:
    with pytest.raises(WorkError) as caught:
        fetch(f"{server.base}/gone.gz", tmp_path / "new" / "gone.gz", accept, what="MNIST, gone.gz")
    assert str(caught.value) == (
        f"MNIST, gone.gz: expected to download {server.base}/gone.gz; got HTTP status 404 (Not Found). "
        f"Download by hand and put it there, or set GLASSNET_DATA to a folder that has it:\n"
        f"  {server.base}/gone.gz -> {tmp_path / 'new' / 'gone.gz'}"
    )
    assert everything_below(tmp_path) == []


def test_a_download_with_a_wrong_digest_is_refused_and_leaves_nothing(server: Any, tmp_path: Path) -> None:
    server.files["/a"] = b"<html>Please sign in</html>"

    def check(path: Path) -> None:
        check_md5(path.read_bytes(), "0" * 32, path, "the content as published")

    with pytest.raises(WorkError) as caught:
        fetch(f"{server.base}/a", tmp_path / "new" / "a", check, remedy="Ask the teacher.")
    text = str(caught.value)
    assert text.startswith(
        f"a: the download of {server.base}/a was refused: expected the content as published with MD5"
    )
    assert text.endswith(" Try again. Ask the teacher.")
    assert ".part" not in text, "the temporary file is gone: its name helps nobody"
    assert everything_below(tmp_path) == []


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit, MemoryError])
def test_an_interruption_leaves_nothing_and_goes_on_to_the_caller(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interruption: type[BaseException]
) -> None:
    server.files["/a"] = CONTENT
    (tmp_path / "kept").write_bytes(b"")
    read, during = http.client.HTTPResponse.read, []

    def interrupted(response: http.client.HTTPResponse, amount: int) -> bytes:
        during.append(everything_below(tmp_path))
        if len(during) == 3:
            raise interruption
        return read(response, amount)

    monkeypatch.setattr(http.client.HTTPResponse, "read", interrupted)
    with pytest.raises(interruption):
        fetch(f"{server.base}/a", tmp_path / "a", accept)
    assert len(during[2]) == 2, "there was a temporary file while it ran"
    assert everything_below(tmp_path) == [tmp_path / "kept"]


def test_without_a_network_the_message_says_what_to_put_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_address(*_: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_address)
    monkeypatch.setenv("no_proxy", "*")
    url, target = "http://example.invalid/set/a.gz", tmp_path / "set" / "a.gz"
    with pytest.raises(WorkError) as caught:
        fetch(url, target, accept)
    assert "got no connection ([Errno -2] Name or service not known). Download by hand" in str(caught.value)
    assert str(caught.value).endswith(f"\n  {url} -> {target}")
    assert everything_below(tmp_path) == []


def test_a_server_that_falls_silent_is_given_up_after_the_timeout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/a"
        with pytest.raises(WorkError, match=r"got a broken connection \(timed out\)"):
            fetch(url, tmp_path / "a", accept, timeout_s=0.05)
    assert everything_below(tmp_path) == []


def test_a_server_that_talks_nonsense_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nonsense(*_: object, **__: object) -> None:
        raise http.client.BadStatusLine("hello")

    monkeypatch.setattr("urllib.request.urlopen", nonsense)
    with pytest.raises(WorkError, match=r"got a broken connection \(hello\)"):
        fetch("http://example.invalid/a", tmp_path / "a", accept)


def test_a_folder_that_cannot_be_made_is_told(server: Any, tmp_path: Path) -> None:
    server.files["/a"] = CONTENT
    (tmp_path / "file").write_bytes(b"")
    target = tmp_path / "file" / "set" / "a"
    with pytest.raises(WorkError, match=rf"a: expected to write {target}; got Not a directory. Pass as root, or set"):
        fetch(f"{server.base}/a", target, accept)
    assert server.asked == []


def test_a_full_disk_is_told_and_leaves_nothing(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.files["/a"] = CONTENT

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WorkError, match=r"got No space left on device. Pass as root.*has room"):
        fetch(f"{server.base}/a", tmp_path / "a", accept)
    assert everything_below(tmp_path) == []


def test_progress_shows_only_on_a_terminal(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server.files["/a.gz"] = CONTENT
    fetch(f"{server.base}/a.gz", tmp_path / "a.gz", accept)
    assert capsys.readouterr() == ("", "")

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    fetch(f"{server.base}/a.gz", tmp_path / "a.gz", accept)
    assert "a.gz" in terminal.getvalue()
    assert "1.0/1.0 MB" in terminal.getvalue()


def test_a_broken_file_error_keeps_its_finding_apart_from_path_and_remedy() -> None:
    error = broken_file(Path("a.gz"), "a gzip file", "a web page")
    assert str(error).startswith("a.gz: expected a gzip file; got a web page. Delete it")
    assert error.finding == "expected a gzip file; got a web page"
    assert isinstance(error, WorkError)


def test_md5_is_compared_with_its_published_examples() -> None:
    check_md5(b"abc", "900150983cd24fb0d6963f7d28e17f72", Path("a"), "content")  # RFC 1321, A.5
    with pytest.raises(BrokenFileError, match="got 3 bytes with MD5 900150983cd24fb0d6963f7d28e17f72"):
        check_md5(b"abc", "900150983cd24fb0d6963f7d28e17f73", Path("a"), "content")


def test_every_missing_file_is_listed_with_its_address_and_path() -> None:
    lines = by_hand(["http://h/x/a", "http://h/x/b"], Path("data")).splitlines()
    assert lines[0].endswith("or set GLASSNET_DATA to a folder that has it:")
    assert lines[1:] == [f"  http://h/x/a -> {Path('data/a')}", f"  http://h/x/b -> {Path('data/b')}"]


def test_root_alone_is_searched_where_it_is_given(no_data: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("GLASSNET_DATA", str(tmp_path / "named"))
    assert data_folders(None) == [tmp_path / "named", no_data]
    assert data_folders(tmp_path) == [tmp_path]
    monkeypatch.delenv("GLASSNET_DATA")
    assert data_folders(None) == [no_data]


def test_a_root_that_is_no_folder_is_a_mistake_of_the_caller(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError, match=r"root must be a folder that exists; got '.*nowhere', which does not exist"):
        data_folders(tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"got '.*file', which is a file"):
        data_folders(tmp_path / "file")


def test_a_home_folder_may_be_written_as_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert data_folders("~") == [tmp_path]
    monkeypatch.setenv("GLASSNET_DATA", "~/sets")
    assert data_folders(None)[0] == tmp_path / "sets"


def test_downloads_go_to_the_first_folder_that_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared, cache = tmp_path / "shared", tmp_path / "cache"
    shared.mkdir()
    assert writable_folder([shared / "mnist", cache / "mnist"]) == shared / "mnist"
    monkeypatch.setattr(module.os, "access", lambda path, _: path != shared)  # tests may run as a user who may all
    assert writable_folder([shared / "mnist", cache / "mnist"]) == cache / "mnist"
    assert writable_folder([shared / "mnist"]) == shared / "mnist", "its error will tell"
    (tmp_path / "file").write_bytes(b"")
    assert writable_folder([tmp_path / "file" / "mnist", cache]) == cache


def test_a_file_is_found_as_published_before_unpacked_and_only_as_the_right_kind(tmp_path: Path) -> None:
    file = DataFile(name="a.gz", url="", unpacked="a")
    packed = DataFile(name="b.tar.gz", url="", unpacked="b/")
    only_published = DataFile(name="a.gz", url="")
    first, second = tmp_path / "1", tmp_path / "2"
    for folder in (first, second):
        folder.mkdir()
    (first / "a").mkdir()
    (first / "b").write_bytes(b"")
    assert file.find([first, second]) is None
    assert packed.find([first, second]) is None
    (second / "a").write_bytes(b"")
    (second / "b").mkdir()
    assert file.find([first, second]) == second / "a"
    assert packed.find([first, second]) == second / "b"
    assert only_published.find([first, second]) is None
    (second / "a.gz").write_bytes(b"")
    assert file.find([first, second]) == second / "a.gz"
