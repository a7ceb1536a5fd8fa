"""CSV and JSON files: what they hold is read, and what is broken is named with its line."""

import gzip
import json
import os

import pytest

from softlabels.errors import SourceError
from softlabels.inputs.describing import describe
from softlabels.inputs.opening import open_source

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


def write(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


@pytest.mark.parametrize("names", [("NA", "SA", "EU"), ("None", "null", "nan"), ("N/A", "", "x")])
def test_missing_looking_names_are_classes_and_an_empty_cell_is_missing(tmp_path, names):
    rows = "".join(f"{i % 2},{names[i % 3]}\n" for i in range(6))
    source = open_source(write(tmp_path / "d.csv", "x,label\n" + rows))
    assert source.class_names == sorted(name for name in names if name)
    expected = [-1 if not n else source.class_names.index(n) for n in names] * 2
    assert source.read(0, 6).labels.tolist() == expected


def test_a_missing_number_names_its_row(tmp_path):
    path = write(tmp_path / "d.csv", "x,z,label\n1,2.5,a\nNA,3,b\n")
    with pytest.raises(SourceError, match="id 1 has an empty cell in the input column"):
        open_source(path).read(0, 2)


def test_quotes_newlines_marks_and_separators_come_through(tmp_path):
    content = '\ufeffx,label\r\n1,"a, ""b"""\r\n2,"two\nlines"\r\n3,a\u2028b\r\n'
    source = open_source(write(tmp_path / "d.csv", content))
    assert source.class_names == ['a, "b"', "a\u2028b", "two\nlines"]
    assert source.columns.inputs == ("x",)
    lines = "\n".join(json.dumps({"x": [1.0], "label": n}, ensure_ascii=False) for n in "a\u2028")
    assert open_source(write(tmp_path / "d.jsonl", lines)).class_names == ["a", "\u2028"]
    tabs = open_source(write(tmp_path / "d.TSV", "x\tlabel\n1\ta,b\n"))
    assert tabs.class_names == ["a,b"]


@pytest.mark.parametrize("ending", [".csv.gz", ".jsonl.gz", ".tsv.gz"])
def test_packed_files(tmp_path, ending):
    text = {".csv.gz": "x,label\n1,a\n", ".tsv.gz": "x\tlabel\n1\ta\n"}.get(ending)
    text = text or '{"x": [1], "label": "a"}\n'
    (tmp_path / f"train{ending}").write_bytes(gzip.compress(text.encode()))
    for place in (tmp_path / f"train{ending}", tmp_path):
        assert open_source(str(place)).read(0, 1).cells.tolist() == [[1]]
    (tmp_path / f"train{ending}").write_bytes(gzip.compress(text.encode())[:-9])
    with pytest.raises(SourceError, match="can't be read"):
        open_source(str(tmp_path / f"train{ending}"))


def test_a_json_file_may_be_one_list_of_objects(tmp_path):
    rows = [{"x": [1, 2], "label": "b"}, {"x": [0.5, 3], "label": "a", "more": 1}]
    source = open_source(write(tmp_path / "d.json", json.dumps(rows, indent=2)))
    assert source.read(0, 2).cells.tolist() == [[1, 2], [0.5, 3]]
    assert "more" in source.table.features
    with pytest.raises(SourceError, match="entry 1 is no object"):
        open_source(write(tmp_path / "e.json", json.dumps([{"x": 1}, 2])))


def test_null_in_a_text_or_a_cell_is_no_row(tmp_path):
    lines = '{"x": [1.0], "label": "} null"}\n{"x": [2.0], "label": null}\n'
    source = open_source(write(tmp_path / "d.jsonl", lines))
    assert (source.class_names, source.labels.tolist()) == (["} null"], [0, -1])


@pytest.mark.parametrize("text", ["2024-01-01", "12:30:00", "2024-01-01T10:00:00"])
def test_texts_that_look_like_times_stay_texts(tmp_path, text):
    source = open_source(write(tmp_path / "d.csv", f"x,label\n1,{text}\n2,{text}\n"))
    assert source.class_names == [text]
    lines = json.dumps({"x": [1.0], "label": text}) + "\n"
    assert open_source(write(tmp_path / "d.jsonl", lines)).class_names == [text]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "x,z,label\n1,2,0\n3,4,1\n5,6,1,7\n", r"a\.csv, line 4: it has 4 fields, not 3"),
        ("b.csv", 'x,label\n1,"a\nb"\n2\n', r"b\.csv, line 4: it has 1 fields, not 2"),
        ("c.csv", "x,label\n1,caf\xe9\n".encode("latin-1"), "not UTF-8: byte 0xe9 in line 2"),
        ("d.csv", "x,label\n1,a\n".encode("utf-16"), "not UTF-8: byte 0xff in line 1"),
        ("e.csv", "", r"e\.csv is empty"),
        ("f.csv", "x,x,label\n1,2,a\n", "the column 'x' comes 2 times"),
        ("g.csv", 'x,label\n1,"a\n2,b\n3,c\n', "row 2: .* never closed"),
        ("q.csv", "1.5,2.5,0\n1.25,2.75,1\n", "first line holds numbers .1.5, 2.5, 0.; it should"),
        ("o.csv", "x;z;label\n1;2;a\n", "parted by ',' here, not by ';'"),
        ("p.tsv", "x,z,label\n1,2,a\n", r"parted by '\\t' here, not by ','"),
        ("h.jsonl", '{"x":[1],"label":0}\n{"x":[1],"la', r"h\.jsonl, line 2: Unterminated string"),
        ("i.jsonl", '{"x":[1]}\n\n[1]\n', "line 3: it is no JSON object"),
        ("r.jsonl", '\nnull\n{"x":[1],"label":0}\n', "line 2: it is no JSON object"),
        ("s.jsonl", '{"x":[1],"label":0}\nnull\n', "line 2: it is no JSON object"),
        ("t.csv", "x,label\n1,a\n".encode("utf-16-le"), "byte of zero in line 1, as UTF-16"),
        ("u.csv", POINTER, "u.csv is a pointer of Git LFS.*git lfs pull"),
        ("v.parquet", POINTER, "v.parquet is a pointer of Git LFS.*git lfs pull"),
        ("j.jsonl", '{"x":1,"y":1}\n{"x":"secret","y":1}\n', "line 2: .*'x' holds text, and a num"),
        ("k.parquet", b"PAR1 is not enough", "can't be read as Parquet"),
        ("l.arrow", b"ARROW1\0\0 cut", "can't be read as Arrow"),
        ("m.csv", "x,label\n", "has no rows below the names of its columns, x, label"),
        ("n.zip", b"PK", "an archive is unpacked first"),
    ],
)  # fmt: skip
def test_what_is_broken_is_named_in_a_line(tmp_path, name, content, message):
    with pytest.raises(SourceError, match=message) as caught:
        open_source(write(tmp_path / name, content))
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_late_text_in_a_column_of_numbers_is_shown(tmp_path):
    rows = "".join(f"{i % 7},{'oops' if i == 80 else i % 5},a\n" for i in range(100))
    with pytest.raises(SourceError, match=r"'z' is text because of row 81, 'oops'"):
        open_source(write(tmp_path / "d.csv", "x,z,label\n" + rows))


def test_a_file_of_another_content_and_the_same_time_is_another_source(tmp_path):
    prints = []
    for value, rows in ((1.0, 4), (5.0, 4), (5.0, 6)):
        path = write(tmp_path / "d.csv", "x,z,label\n" + f"{value},{value},0\n" * rows)
        os.utime(path, (1_700_000_000, 1_700_000_000))
        source = open_source(path)
        assert (len(source), source.read(0, 1).cells.tolist()) == (rows, [[value, value]])
        prints.append(source.fingerprint)
    assert len(set(prints)) == 3


@pytest.mark.parametrize("name", ["data[1].csv", "a*b.csv", "a?b.csv", "~x.csv", "ü {a,b}.csv"])
def test_the_file_that_is_named_is_read(tmp_path, name, monkeypatch):
    for other in ("data1.csv", "aXb.csv", "ü a.csv"):
        write(tmp_path / other, "x,z,label\n" + "9,9,1\n" * 3)
    write(tmp_path / name, "x,z,label\n" + "1,2,0\n" * 8)
    monkeypatch.chdir(tmp_path)
    for spelling in (name, str(tmp_path / name)):
        source = open_source(spelling)
        assert (len(source), source.read(0, 1).cells.tolist()) == (8, [[1, 2]])
    folder = tmp_path / f"{name} [v2]*"
    folder.mkdir()
    write(folder / "train.csv", "x,z,label\n3,4,0\n")
    assert open_source(str(folder)).read(0, 1).cells.tolist() == [[3, 4]]


def test_whole_numbers_that_begin_with_zeros_stay_as_they_are_written(tmp_path):
    """As ids and as class names; as inputs they are numbers."""
    rows = [("001", "00", "007", "1.50"), ("1", "01", "10", "2.25"), ("-01", "1", "010", "0.05")]
    text = "id,label,a,b\n" + "".join(",".join(row) + "\n" for row in rows)
    source = open_source(write(tmp_path / "d.csv", text), id_column="id")
    assert source.ids.tolist() == ["001", "1", "-01"]
    assert source.class_names == ["00", "01", "1"]
    assert source.read(0, 3).cells.tolist() == [[7, 1.5], [10, 2.25], [10, pytest.approx(0.05)]]
    assert len(describe(source)) == 1
    path = write(tmp_path / "e.tsv", text.replace(",", "\t"))
    other = open_source(path, label_column="a", input_column="label")
    assert other.class_names == ["007", "010", "10"]
    assert other.read(0, 3).cells.ravel().tolist() == [0, 1, 1]


def test_zeros_at_the_beginning_in_one_of_two_files(tmp_path):
    write(tmp_path / "train-a.csv", "key,label,x\n001,1,1\n,NA,2\n")
    write(tmp_path / "train-b.csv", "key,label,x\n100,02,03\n101,2,4\n")
    source = open_source(str(tmp_path), input_column="x")
    assert source.class_names == ["1", "02", "2"]
    assert source.labels.tolist() == [0, -1, 1, 2]
    assert source.read(0, 4).cells.ravel().tolist() == [1, 2, 3, 4]
    write(tmp_path / "train-a.csv", "key,label,x\n001,1,1\n002,NA,2\n")
    assert open_source(str(tmp_path), id_column="key").ids.tolist() == ["001", "002", "100", "101"]


def test_numbers_without_such_zeros_are_numbers(tmp_path):
    text = 'id,label,x,when\n0,0,0.5,00:10\n10,1,-0.25,01:20\n20,0,"00.5",02:30\n'
    source = open_source(write(tmp_path / "d.csv", text), id_column="id", input_column="x")
    assert source.ids.tolist() == [0, 10, 20]
    assert source.class_names is None
    assert source.read(0, 3).cells.ravel().tolist() == [0.5, -0.25, 0.5]
