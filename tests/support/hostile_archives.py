"""Hostile archives: zip and tar in all their dress."""

from __future__ import annotations

import gzip
import tarfile
import zipfile

from tests.support import hostile_files as h
from tests.support.hostile_files import ACCEPTED, Case

ARCHIVES = [
    Case("absolute path", "x.zip", lambda: h.zip_with("/etc/passwd"), "unsafe_name", "/etc/passwd"),
    Case("climbing path", "x.zip", lambda: h.zip_with("a/../../escaped.png"), "unsafe_name", "escaped.png"),
    Case("backslashes that climb", "x.zip", lambda: h.zip_with("..\\escaped.png"), "unsafe_name", "escaped.png"),
    Case("drive letter", "x.zip", lambda: h.zip_with("C:/escaped.png"), "unsafe_name", "C:/escaped.png"),
    Case("UNC path", "x.zip", lambda: h.zip_with("\\\\host\\share\\x.png"), "unsafe_name", "share"),
    Case("a name of dots", "x.zip", lambda: h.zip_with("./."), "bad_name", "./."),
    Case("an endless name", "x.zip", lambda: h.zip_with("a/" * 3000 + "x.png"), "bad_name", "a/a/"),
    Case("symbolic link", "x.zip", lambda: h.zip_with("a/link.png", b"/etc/passwd", 0o120777), "link", "a/link.png"),
    Case("device", "x.zip", lambda: h.zip_with("a/dev.png", b"", 0o020666), "link", "a/dev.png"),
    Case("pipe", "x.zip", lambda: h.zip_with("a/pipe.png", b"", 0o010666), "link", "a/pipe.png"),
    Case("socket", "x.zip", lambda: h.zip_with("a/socket.png", b"", 0o140666), "link", "a/socket.png"),
    Case("the same name twice", "x.zip", lambda: h.zip_with("a/00.png", h.png()), "duplicate_entry", "a/00.png"),
    Case(
        "the same path, spelt twice", "x.zip", lambda: h.zip_with("a/./00.png", h.png()), "duplicate_entry", "a/00.png"
    ),
    Case(
        "the same path, slashed twice", "x.zip", lambda: h.zip_with("a//00.png", h.png()), "duplicate_entry", "a/00.png"
    ),
    Case("encrypted", "x.zip", h.encrypted, "encrypted", "a/00.png"),
    Case("encrypted, said by the entry alone", "x.zip", h.encrypted_in_the_entry_only, "encrypted", "a/0.png"),
    Case("overlapping entries", "x.zip", h.overlapping, "overlapping_entries", "b/2.png"),
    Case("entry under another name", "x.zip", h.of_another_name, "unreadable_image", "a/1.png"),
    Case("wrong checksum", "x.zip", h.wrong_checksum, "unreadable_image", "b/03.png"),
    Case("one wrong checksum of many", "x.zip", lambda: h.wrong_checksum(count=40), ACCEPTED, "b/03.png"),
    Case("more bytes than announced", "x.zip", h.lying_size, "unreadable_image", "a/0.png"),
    Case("three gigabytes announced", "x.zip", h.announced_size, "bomb", "a/0.png"),
    Case("compression of an unknown kind", "x.zip", h.unknown_method, "unknown_compression", "a/0.png"),
    Case("offset into the directory", "x.zip", h.far_offset, "unreadable_image", "b/0.png"),
    Case("bomb", "x.zip", lambda: h.zipped({"a/0.png": bytes(40 << 20)}), "bomb", "a/0.png"),
    Case(
        "bomb of bzip2", "x.zip", lambda: h.zipped({"a/0.png": bytes(40 << 20)}, zipfile.ZIP_BZIP2), "bomb", "a/0.png"
    ),
    Case("zip in a zip", "x.zip", h.nested_zip, "unknown_kind", "0.zip"),
    Case("truncated", "x.zip", lambda: h.zipped(h.good())[:-40], "damaged_archive", "upload.zip"),
    Case("half", "x.zip", lambda: h.zipped(h.good())[:2000], "damaged_archive", "upload.zip"),
    Case("a beginning alone", "x.zip", lambda: b"PK\x03\x04", "damaged_archive", "upload.zip"),
    Case("empty", "x.zip", lambda: h.zipped({}), "empty", "upload.zip"),
    Case("folders alone", "x.zip", lambda: h.zipped({"a/": b"", "b/": b""}), "empty", "upload.zip"),
    Case("what macOS leaves alone", "x.zip", lambda: h.zipped({"__MACOSX/a/._1.png": b"x"}), "empty", "upload.zip"),
    Case("bytes behind the end", "x.zip", lambda: h.among(b"no")() + b"behind" * 50, ACCEPTED, "a/bad.png"),
    Case("bytes before the start", "x.zip", lambda: b"#!/bin/sh\n" * 9 + h.among(b"no")(), ACCEPTED, "a/bad.png"),
    Case("zip64", "x.zip", h.zip64, ACCEPTED, "a/bad.png"),
    Case(
        "a name in code page 437",
        "x.zip",
        lambda: h.among(b"no", "a/b\u00e4d.png")().replace("ä".encode(), b"\xc3\x84"),
        ACCEPTED,
        ".png",
    ),
    Case(
        "a name with a bell and a colour",
        "x.zip",
        lambda: h.among(b"no", "a/\x07\x1b[31mred.png")(),
        ACCEPTED,
        "[31mred.png",
    ),
    Case(
        "a name written from right to left",
        "x.zip",
        lambda: h.among(b"no", "a/\u202egnp.exe.png")(),
        ACCEPTED,
        "gnp.exe",
    ),
    Case("classes that differ in case", "x.zip", lambda: h.zipped({**h.good(), "A/1.png": h.png()}), ACCEPTED, "'A'"),
    Case("RAR", "x.rar", lambda: b"Rar!\x1a\x07\x01\x00" + bytes(90), "wrong_file_type", "upload.rar"),
    Case("7z", "x.7z", lambda: b"7z\xbc\xaf\x27\x1c" + bytes(90), "wrong_file_type", "upload.7z"),
]
TARS = [
    Case("absolute path", "x.tar", lambda: h.tarred({**h.good(), "/etc/passwd": b"x"}), "unsafe_name", "/etc/passwd"),
    Case("climbing path", "x.tar", lambda: h.tarred({**h.good(), "../escaped.png": b"x"}), "unsafe_name", "escaped"),
    Case(
        "symbolic link",
        "x.tar",
        lambda: h.tarred({**h.good(), "l": h.special("a/l.png", tarfile.SYMTYPE)}),
        "link",
        "a/l.png",
    ),
    Case(
        "link over a folder",
        "x.tar",
        lambda: h.tarred({"l": h.special("a", tarfile.SYMTYPE, "/tmp"), **h.good()}),
        "link",
        "a",
    ),
    Case(
        "hard link",
        "x.tar",
        lambda: h.tarred({**h.good(), "l": h.special("a/l.png", tarfile.LNKTYPE)}),
        "link",
        "a/l.png",
    ),
    Case(
        "device", "x.tar", lambda: h.tarred({**h.good(), "l": h.special("a/d.png", tarfile.BLKTYPE)}), "link", "a/d.png"
    ),
    Case(
        "pipe", "x.tar", lambda: h.tarred({**h.good(), "l": h.special("a/p.png", tarfile.FIFOTYPE)}), "link", "a/p.png"
    ),
    Case(
        "the same name twice",
        "x.tar",
        lambda: h.tarred({**h.good(), "./a/00.png": h.png()}),
        "duplicate_entry",
        "a/00.png",
    ),
    Case("bomb", "x.tar.gz", lambda: gzip.compress(h.tarred({"a/0.png": bytes(40 << 20)})), "bomb", "a/0.png"),
    Case("bomb", "x.tar.xz", lambda: h.compressed("xz", h.tarred({"a/0.png": bytes(40 << 20)})), "bomb", "a/0.png"),
    Case("bomb", "x.tar.zst", lambda: h.compressed("zst", h.tarred({"a/0.png": bytes(40 << 20)})), "bomb", "a/0.png"),
    Case("a bomb in a header", "x.tar.gz", h.pax_bomb, "damaged_archive", "upload.tar.gz"),
    Case(
        "a petabyte announced",
        "x.tar",
        lambda: h.tarred({"l": h.special("a/huge.png", tarfile.REGTYPE, "", 1 << 50)}),
        "bomb",
        "a/huge.png",
    ),
    Case("truncated", "x.tar", lambda: h.tarred(h.good())[:9000], "damaged_archive", "a/"),
    Case("truncated", "x.tar.gz", lambda: gzip.compress(h.tarred(h.good()))[:-30], "damaged_archive", "upload.tar.gz"),
    Case(
        "truncated",
        "x.tar.xz",
        lambda: h.compressed("xz", h.tarred(h.good()))[:-60],
        "damaged_archive",
        "upload.tar.xz",
    ),
    Case(
        "truncated",
        "x.tar.zst",
        lambda: h.compressed("zst", h.tarred(h.good()))[:-9],
        "damaged_archive",
        "upload.tar.zst",
    ),
    Case(
        "a flipped checksum",
        "x.tar.gz",
        lambda: h.patched(r := gzip.compress(h.tarred(h.good())), len(r) - 8, b"ABCD"),
        "damaged_archive",
        "upload.tar.gz",
    ),
    Case(
        "noise as zstandard",
        "x.tar.zst",
        lambda: b"\x28\xb5\x2f\xfd" + bytes(range(200)),
        "damaged_archive",
        "upload.tar.zst",
    ),
    Case(
        "noise as gzip", "x.tar.gz", lambda: b"\x1f\x8b\x08\x00" + bytes(range(200)), "damaged_archive", "upload.tar.gz"
    ),
    Case(
        "bytes that are no UTF-8 in a name",
        "x.tar",
        lambda: h.tarred({**h.good(), "a/b\udce4d.png": b"no"}, tarfile.GNU_FORMAT),
        ACCEPTED,
        "a/bäd.png",
    ),
    Case("an empty tar", "x.tar", lambda: bytes(10240), "empty", "upload.tar"),
    Case(
        "gzip in gzip",
        "x.csv.gz",
        lambda: gzip.compress(gzip.compress(b"a,b\n1,2\n")),
        "damaged_archive",
        "upload.csv.gz",
    ),
    Case("a table as a bomb", "x.csv.gz", lambda: gzip.compress(b"0,0\n" * (10 << 20), 9), "bomb", "upload.csv.gz"),
]
