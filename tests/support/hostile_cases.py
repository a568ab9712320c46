"""The table of hostile uploads, by what they are."""

from __future__ import annotations

import gzip

import numpy as np

from tests.support import hostile_files as h
from tests.support.hostile_archives import ARCHIVES, TARS
from tests.support.hostile_files import ACCEPTED, Case

IMAGES = [
    Case("no image", "x.zip", h.among(b"no image"), ACCEPTED, "a/bad.png"),
    Case("empty file", "x.zip", h.among(b""), ACCEPTED, "a/bad.png"),
    Case("cut off", "x.zip", h.among(h.png("RGB", (90, 90), (1, 2, 3))[:90]), ACCEPTED, "a/bad.png"),
    Case("a bomb of pixels", "x.zip", h.among(h.bomb_png()), ACCEPTED, "a/bad.png"),
    Case("a bomb of comments", "x.zip", h.among(h.text_bomb_png()), ACCEPTED, "a/bad.png"),
    Case("a page of HTML", "x.zip", h.among(b"<html>404</html>", "a/bad.jpg"), ACCEPTED, "a/bad.jpg"),
    Case("SVG", "x.zip", h.among(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "a/bad.png"), ACCEPTED, "a/bad.png"),
    Case(
        "PostScript",
        "x.zip",
        h.among(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "a/bad.png"),
        ACCEPTED,
        "a/bad.png",
    ),
    *(
        Case(
            f"half a {kind}",
            "x.zip",
            h.among(raw[: len(raw) // 2], f"a/bad.{kind.lower()}"),
            ACCEPTED,
            f"a/bad.{kind.lower()}",
        )
        for kind in ("JPEG", "WEBP", "BMP", "GIF", "TIFF")
        for raw in [h.png("RGB", (64, 64), (200, 30, 90), kind)]
    ),
    Case(
        "most are broken",
        "x.zip",
        lambda: h.zipped({f"{c}/{i}.png": b"x" for c in "ab" for i in range(9)}),
        "unreadable_image",
        "a/0.png",
    ),
    Case(
        "no class folder", "x.zip", lambda: h.zipped({**h.good(), "loose.png": h.png()}), "no_class_folder", "loose.png"
    ),
    Case(
        "no class inside a part",
        "x.zip",
        lambda: h.zipped({"train/a/1.png": h.png(), "train/b/1.png": h.png(), "test/x.png": h.png()}),
        "no_class_folder",
        "test/x.png",
    ),
    Case("texts alone", "x.zip", lambda: h.zipped({"a/1.txt": b"x", "b/2.txt": b"y"}), "unknown_kind", "a/1.txt"),
    Case("said to be images", "x.zip", lambda: h.zipped({"a/1.txt": b"x"}), "no_images", "a/1.txt", "images"),
    Case(
        "one class", "x.zip", lambda: h.zipped({f"a/{i}.png": h.png(colour=i) for i in range(9)}), ACCEPTED, "one class"
    ),
    Case(
        "all alike", "x.zip", lambda: h.zipped({f"{'ab'[i % 2]}/{i}.png": h.png() for i in range(9)}), ACCEPTED, "1.png"
    ),
    Case(
        "16 bits", "x.zip", lambda: h.zipped({**h.good(), "a/deep.png": h.png("I;16", colour=65535)}), ACCEPTED, "I;16"
    ),
    Case("a lone image", "x.png", h.png, "wrong_file_type", "upload.png"),
]
LABELLED = [
    Case(
        "rows without an image",
        "x.zip",
        lambda: h.zipped({"t.csv": b"file,label\n0.png,x\nno.png,y\n", "0.png": h.png()}),
        "bad_row",
        "row 2",
    ),
    Case(
        "no column of files",
        "x.zip",
        lambda: h.zipped({"t.csv": b"n,label\n7,x\n8,y\n", "p.png": h.png()}),
        "no_file_column",
        "t.csv",
    ),
    Case(
        "no label",
        "x.zip",
        lambda: h.zipped({"t.csv": b"file,u,v\n0.png,1,2\n", "0.png": h.png()}),
        "missing_target",
        "t.csv",
    ),
    Case(
        "an unknown label",
        "x.zip",
        lambda: h.zipped({"t.csv": b"file,label\n0.png,x\n", "0.png": h.png()}),
        "missing_column",
        "target",
        None,
        "lable",
    ),
]
TABLES = [
    Case("empty file", "x.csv", lambda: b"", "empty", "upload.csv"),
    Case("blank lines alone", "x.csv", lambda: b"\n\n\n", "empty", "upload.csv"),
    Case("a header alone", "x.csv", h.csv("x,y"), "no_rows", "upload.csv"),
    Case("a NUL", "x.csv", h.csv("x,y", *["1,2"] * 2000, "1,\x002"), "binary", "line 2002"),
    Case("binary", "x.csv", lambda: bytes(range(256)) * 9, "unknown_kind", "upload.csv"),
    Case("one row too long", "x.csv", h.rows("1,2,3"), ACCEPTED, "line 3"),
    Case("one row too short", "x.csv", h.rows("1"), ACCEPTED, "line 3"),
    Case("many rows too long", "x.csv", h.csv("x,y", "1,2", "1,2,3", "4,5,6"), "bad_row", "line 3"),
    Case("a quote that never closes", "x.csv", h.rows('"1,2'), "open_quote", "line 3"),
    Case("the same column twice", "x.csv", h.csv("x,x", "1,2", "3,4"), "duplicate_column", "x"),
    Case(
        "half of UTF-16",
        "x.csv",
        lambda: b"\xff\xfe" + "x,y\n1,2\n".encode("utf-16-le")[:-1],
        "bad_encoding",
        "upload.csv",
    ),
    Case(
        "too many columns", "x.csv", h.csv(",".join(f"c{i}" for i in range(100_001)), "1"), "too_many_columns", "line 1"
    ),
    Case(
        "a target that is not there", "x.csv", h.csv("x,label", "1,a", "2,b"), "missing_column", "lable", None, "lable"
    ),
    Case("infinities", "x.csv", h.rows("inf,-inf"), ACCEPTED, "infinite"),
    Case("numbers beyond floats", "x.csv", h.rows("1e999,2"), ACCEPTED, "infinite"),
    Case("a constant column", "x.csv", h.csv("x,y", *(f"1,{i % 7}" for i in range(30))), ACCEPTED, "x"),
    Case("broken JSON", "x.jsonl", h.lines_of_json({"x": 1}, "{", {"x": 2}), "bad_row", "line 2"),
    Case(
        "one broken line of many",
        "x.jsonl",
        h.lines_of_json({"x": 1}, "{", *[{"x": i} for i in range(40)]),
        ACCEPTED,
        "line 2",
    ),
    Case("a list among objects", "x.jsonl", h.lines_of_json({"x": 1}, [1], {"x": 2}), "bad_row", "line 2"),
    Case("nested objects", "x.jsonl", h.lines_of_json({"x": 1}, {"x": {"y": 1}}), "nested_value", "row 2"),
    Case(
        "JSON as deep as a well", "x.jsonl", lambda: b'{"x": ' + b"[" * 10**5 + b"]" * 10**5 + b"}", "bad_row", "line 1"
    ),
    Case(
        "a number of a million digits",
        "x.jsonl",
        h.lines_of_json({"x": 1}, '{"x": ' + "9" * 10**6 + "}"),
        "bad_row",
        "line 2",
    ),
    Case(
        "NUL and half a character in JSON",
        "x.jsonl",
        h.lines_of_json(*[{"x": c} for c in ("a\x00b", "c\ud800")]),
        ACCEPTED,
        "",
    ),
    Case("a broken JSON list", "x.json", lambda: b'[{"x": 1}, {"x": ]', "bad_json", "upload.json"),
    Case("numbers in a JSON list", "x.json", lambda: b'[{"x": 1}, 2]', "bad_json", "row 2"),
    Case("a Parquet header alone", "x.parquet", lambda: b"PAR1", "damaged_parquet", "upload.parquet"),
    Case("Parquet cut off", "x.parquet", lambda: h.parquet({"x": [1, 2]})[:-20], "damaged_parquet", "upload.parquet"),
    Case(
        "noise in Parquet",
        "x.parquet",
        lambda: b"PAR1" + bytes(range(256)) * 4 + b"PAR1",
        "damaged_parquet",
        "upload.parquet",
    ),
    Case(
        "lists in Parquet",
        "x.parquet",
        lambda: h.parquet({"ok": [1, 2], "lists": [[1], [2, 3]]}),
        "unsupported_column",
        "lists",
    ),
    Case(
        "bytes in Parquet",
        "x.parquet",
        lambda: h.parquet({"ok": [1, 2], "raw": [b"\xff", b"\x00"]}),
        "unsupported_column",
        "raw",
    ),
    Case("two tables", "x.zip", lambda: h.zipped({"a.csv": b"x\n1\n", "b.csv": b"x\n1\n"}), "unknown_kind", "a.csv"),
]
ARRAYS = [
    Case("a pickle", "x.npy", lambda: h.array_bytes(np.array([{}], object), pickled=True), "pickle", "upload.npy"),
    Case(
        "a pickle among arrays", "x.npz", lambda: h.npz(X=np.eye(3), y=np.array([1, "a", None], object)), "pickle", "y"
    ),
    Case(
        "a pickle in a tar",
        "x.tar",
        lambda: h.tarred({"X.npy": h.array_bytes(np.array([{}], object), pickled=True)}),
        "pickle",
        "X.npy",
    ),
    Case(
        "a header that lies",
        "x.npy",
        lambda: h.npy_header("{'descr': '<f8', 'fortran_order': False, 'shape': (10**15,)}"),
        "damaged_array",
        "upload.npy",
    ),
    Case("a header of code", "x.npy", lambda: h.npy_header("__import__('os').abort()"), "damaged_array", "upload.npy"),
    Case(
        "a negative shape",
        "x.npy",
        lambda: h.npy_header("{'descr': '<f8', 'fortran_order': False, 'shape': (-1, 2)}", bytes(64)),
        "damaged_array",
        "upload.npy",
    ),
    Case(
        "a petabyte of shape",
        "x.npy",
        lambda: h.npy_header("{'descr': '|u1', 'fortran_order': False, 'shape': (1125899906842624, 2)}"),
        "damaged_array",
        "upload.npy",
    ),
    Case("a version from the future", "x.npy", lambda: b"\x93NUMPY\x09\x00" + bytes(90), "damaged_array", "upload.npy"),
    Case("cut off", "x.npy", lambda: h.array_bytes(np.ones((9, 9)))[:-8], "damaged_array", "upload.npy"),
    Case("text", "x.npz", lambda: h.npz(X=np.array([["a", "b"]])), "not_numeric", "X"),
    Case("complex numbers", "x.npz", lambda: h.npz(X=np.ones((3, 2), complex)), "not_numeric", "X"),
    Case("records", "x.npz", lambda: h.npz(X=np.zeros((3, 2), [("a", "<i4"), ("b", "<f4")])), "not_numeric", "X"),
    Case("unequal lengths", "x.npz", lambda: h.npz(X=np.eye(3), y=np.arange(2)), "unequal_lengths", "y"),
    Case("no samples", "x.npz", lambda: h.npz(X=np.empty((0, 3))), "empty", "no samples"),
    Case("unknown names", "x.npz", lambda: h.npz(foo=np.eye(3)), "unknown_arrays", "foo"),
    Case("NaN as targets", "x.npz", lambda: h.npz(X=np.eye(3), y=np.array([0.5, np.nan, 1.5])), "not_finite", "y"),
    Case("an unknown part", "x.npz", lambda: h.npz(X=np.eye(3), split=np.array([0, 1, 7])), "unknown_part", "split"),
    Case(
        "parts of two shapes",
        "x.npz",
        lambda: h.npz(X_train=np.eye(3), y_train=np.arange(3), X_test=np.eye(2), y_test=np.arange(2)),
        "unequal_shapes",
        "X",
    ),
    Case(
        "a climbing member",
        "x.npz",
        lambda: h.zipped({"../X.npy": h.array_bytes(np.eye(3))}),
        "unsafe_name",
        "../X.npy",
    ),
    Case(
        "64 MiB of zeros in 64 KiB",
        "x.npz",
        lambda: h.zipped({"X.npy": h.array_bytes(np.zeros((1 << 20, 8)))}),
        "bomb",
        "200 times the",
    ),
    Case("half an NPZ", "x.npz", lambda: h.npz(X=np.eye(99))[:2000], "damaged_archive", "upload.npz"),
]
SEQUENCES = [
    Case(
        "offsets that fall",
        "x.npz",
        lambda: h.npz(values=np.ones((6, 2)), offsets=np.array([0, 4, 2, 6])),
        "bad_offsets",
        "offsets",
    ),
    Case(
        "offsets beyond the end",
        "x.npz",
        lambda: h.npz(values=np.ones((6, 2)), offsets=np.array([0, 9])),
        "bad_offsets",
        "offsets",
    ),
    Case(
        "offsets that are no numbers",
        "x.npz",
        lambda: h.npz(values=np.ones((6, 2)), offsets=np.array([0.0, 6.0])),
        "bad_offsets",
        "offsets",
    ),
    Case(
        "offsets of a pickle",
        "x.npz",
        lambda: h.npz(values=np.ones((6, 2)), offsets=np.array([0, None], object)),
        "pickle",
        "offsets",
    ),
    Case(
        "lengths beyond the end",
        "x.npz",
        lambda: h.npz(X=np.ones((2, 3, 1)), lengths=np.array([3, 9])),
        "bad_lengths",
        "lengths",
    ),
    Case(
        "text for values",
        "x.npz",
        lambda: h.npz(values=np.array([["a"]]), offsets=np.array([0, 1])),
        "not_numeric",
        "values",
    ),
    Case("no id", "x.csv", h.csv("x,y", "1,2", "3,4"), "missing_column", "upload.csv", "sequences"),
    Case(
        "labels that change",
        "x.csv",
        h.csv("id,x,label", "1,2,a", "1,3,b"),
        "mixed_labels",
        "row 2",
        "sequences",
        "label",
    ),
    Case("gaps in a step", "x.csv", h.csv("id,x", "1,2", "1,"), "not_numeric", "x", "sequences"),
    Case("nothing but ids", "x.csv", h.csv("id", "1", "2"), "no_features", "upload.csv", "sequences"),
]
IDX = [
    Case("images cut off", "x.zip", lambda: h.mnist(images=h.idx((4, 2, 2), bytes(15))), "truncated", "train-images"),
    Case("images too long", "x.zip", lambda: h.mnist(images=h.idx((4, 2, 2), bytes(17))), "truncated", "train-images"),
    Case(
        "a huge shape", "x.zip", lambda: h.mnist(images=h.idx((2**31, 2**31, 2**31), b"")), "truncated", "train-images"
    ),
    Case("a header cut off", "x.zip", lambda: h.mnist(images=b"\x00\x00\x08\x03\x00"), "truncated", "train-images"),
    Case("floats", "x.zip", lambda: h.mnist(images=h.idx((4, 2, 2), bytes(64), 0x0D)), "not_idx", "train-images"),
    Case(
        "labels missing",
        "x.zip",
        lambda: h.zipped({"train-images-idx3-ubyte": h.idx((1, 1, 1), b"x")}),
        "unequal_lengths",
        "train",
    ),
    Case("fewer labels", "x.zip", lambda: h.mnist(labels=h.idx((3,), bytes(3))), "unequal_lengths", "train"),
    Case(
        "no images in it",
        "x.zip",
        lambda: h.mnist(images=h.idx((0, 2, 2), b""), labels=h.idx((0,), b"")),
        "empty",
        "train",
    ),
    Case(
        "damaged gzip",
        "x.zip",
        lambda: h.mnist(images=gzip.compress(h.idx((4, 2, 2), bytes(16)))[:-9]),
        "damaged_gzip",
        "train-images",
    ),
    Case("a bomb in gzip", "x.zip", lambda: h.mnist(images=gzip.compress(bytes(64 << 20))), "bomb", "train-images"),
    Case("a file alone", "train-images-idx3-ubyte", lambda: h.idx((4, 2, 2), bytes(16)), "lone_idx", "upload"),
    Case(
        "weights that are cut off",
        "x.safetensors",
        lambda: (99).to_bytes(8, "little") + b"{",
        "unknown_kind",
        "upload.safetensors",
    ),
]
GROUPS = {
    "archive": ARCHIVES,
    "tar": TARS,
    "image": IMAGES,
    "labelled": LABELLED,
    "table": TABLES,
    "array": ARRAYS,
    "sequence": SEQUENCES,
    "idx": IDX,
}
CASES = [(f"{group}: {case.name} ({case.file})", case) for group, cases in GROUPS.items() for case in cases]
