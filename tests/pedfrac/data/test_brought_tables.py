"""Tables that people bring: no cell moves to another column, no value to another image."""

import pandas as pd
import pytest
from small_bundles import INFO, write_image

from pedfrac.bundle.onnx_export import labelled_images
from pedfrac.config.loading import load_config
from pedfrac.config.phantoms import PhantomConfig
from pedfrac.data.brought_tables import match_names, read_brought_table
from pedfrac.data.split import read_split_table
from pedfrac.data.split_file import read_split_file
from pedfrac.errors import PedfracError
from pedfrac.phantoms.dataset import write_phantoms
from pedfrac.pipeline.data import previous_table
from pedfrac.serving.images import find_images, read_ages


def read(tmp_path, text):
    (tmp_path / "t.csv").write_bytes(text.encode() if isinstance(text, str) else text)
    return read_ages(tmp_path / "t.csv")


@pytest.mark.parametrize(
    "text",
    [
        "filestem,age\na,3\nb,4.5\n",
        "filestem,age\na,3,\nb,4.5,\n",  # each row ends in a comma
        "filestem,age,\na,3,\nb,4.5,\n",
        "\ufefffilestem , age\r\n a , 3 \r\n,\r\nb,4.5\r\n\r\n",
        'age,note,filestem\n3,x,a\n4.5,"y,\nz",b\n',
    ],
)
def test_ages_are_read_whatever_stands_around_them(tmp_path, text):
    assert read(tmp_path, text) == {"a": 3, "b": 4.5}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "filestem,age\na,3\nb,3,12,0\n",
            r"t.csv line 3: 4 cells, but the header has 2",
        ),
        ("filestem,age\na\n", r"t.csv line 2: 1 cells, but the header has 2"),
        ('filestem,age\na,"3,12"\n', r"t.csv line 2: age '3,12' is no number of years"),
        ("filestem;age\na;3,5\n", "column filestem, age is missing.*separated by commas"),
        ("filestem,Age\na,3\n", "column age is missing, found 'filestem', 'Age'; is it 'Age'"),
        ("filestem,age,age\na,3,4\n", "column age is there twice"),
        ("filestem,age\na,3\nb,4\na,5\n", "line 4: a is listed twice, first on line 2"),
        ("filestem,age\n", "holds no rows"),
        ("", "column filestem, age is missing, found none"),
        (b"filestem,age\n\xe4,3\n", "is not UTF-8"),
    ],
)
def test_what_would_move_a_cell_is_refused_by_line(tmp_path, text, said):
    with pytest.raises(PedfracError, match=said):
        read(tmp_path, text)


def test_lines_are_those_of_the_file(tmp_path):
    (tmp_path / "t.csv").write_text('a,b\n\n"x\ny",1\nz,2\n')
    table = read_brought_table(tmp_path / "t.csv", ("b",))
    assert dict(table["b"]) == {3: "1", 5: "2"}


@pytest.mark.parametrize("name", ["1", "1.png", "b/1", "b/1.png", "a/b/1.png"])
def test_names_are_stems_file_names_or_ends_of_paths(name):
    assert match_names({name: 3}, ["a/b/1.png", "a/b/2.png"]) == {"a/b/1.png": 3}


def test_images_that_are_called_alike_do_not_share_a_value():
    images = ["a/1.png", "b/1.png"]
    with pytest.raises(PedfracError, match="1 may be a/1.png or b/1.png; name images"):
        match_names({"1": 3}, images)
    assert match_names({"a/1": 3, "b/1.png": 4}, images) == {"a/1.png": 3, "b/1.png": 4}
    assert match_names({"1": 3, "b/1": 4}, images) == {"a/1.png": 3, "b/1.png": 4}


def test_two_names_of_one_image_must_agree():
    assert match_names({"1": 3, "1.png": 3}, ["1.png"]) == {"1.png": 3}
    with pytest.raises(PedfracError, match="give 1.png different values"):
        match_names({"1": 3, "1.png": 4}, ["1.png"])


def test_names_of_no_image_are_counted_or_refused(caplog):
    with pytest.raises(PedfracError, match="none of 1 names, such as x, is that of one"):
        match_names({"x": 3}, ["1.png"])
    match_names({"x": 3, "1": 4}, ["1.png"], "ages.csv")
    assert "ages.csv: 1 of 2 names fit no image (x)" in caplog.text


def test_ages_and_labels_of_two_folders_stay_apart(tmp_path):
    for folder in ("a", "b", "labels/a", "labels/b"):
        (tmp_path / "all" / folder).mkdir(parents=True)
    root, labels = tmp_path / "all", tmp_path / "all/labels"
    for folder in ("a", "b"):
        write_image(root / folder / "1.png")
        (labels / folder / "1.txt").write_text("8 0.5 0.5 0.1 0.1")
    first, second = find_images([root], {"a/1": 3, "b/1": 14}, labels)
    assert (first.age, second.age) == (3, 14)
    assert (first.labels, second.labels) == (labels / "a/1.txt", labels / "b/1.txt")
    (labels / "a/1.txt").rename(labels / "1.txt")
    with pytest.raises(PedfracError, match=r"labels/1.txt: may be that of .*a/1.png or of another"):
        find_images([root], None, labels)


def test_a_split_with_a_row_that_is_too_long_is_refused(tmp_path):
    (tmp_path / "s.csv").write_text("filestem,split\n0001_a,train\n0002_b,te,st\n")
    with pytest.raises(PedfracError, match="s.csv line 3: 3 cells, but the header has 2"):
        read_split_file(tmp_path / "s.csv")


SPLIT = """filestem,patient_id,part,reason,place,fold
0001_a,1,train,,train,-1
0002_a,2,validation,,validation,-1
0002_b,2,left_out,surplus,validation,-1
0003_a,3,test,,test,-1
"""


def previous(path):
    """Read an earlier split as a run does that names it."""
    return previous_table(load_config(None, ["data.root=data", f"split.previous={path}"]), None)


def test_a_previous_split_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "split.csv"
    path.write_text(SPLIT)
    expected = read_split_table(path)
    pd.testing.assert_frame_equal(previous(path), expected)
    path.write_text(SPLIT.replace("\n", ",\r\n"), encoding="utf-8-sig")  # through a spreadsheet
    pd.testing.assert_frame_equal(previous(path), expected)


@pytest.mark.parametrize(
    ("was", "now", "said"),
    [
        ("0003_a,3,", "0003_a,b,3,", "split.csv line 5: 7 cells, but the header has 6"),
        ("0003_a,3,test", "0003_a,3,tests", "line 5: part 'tests' must be one of train"),
        ("0003_a,3,", "0003_a,3.0,", "line 5: patient_id '3.0' must be a whole number"),
        ("test,-1", "test,", "line 5: fold '' must be a whole number"),
        ("0003_a", "0002_a", "line 5: 0002_a is listed twice, first on line 3"),
        ("patient_id", "patient", "column patient_id is missing.*is it 'patient'"),
        (SPLIT, "", "column filestem, patient_id, part, .* is missing, found none"),
        (SPLIT, SPLIT.splitlines()[0], "holds no rows"),
    ],
)
def test_a_previous_split_that_was_changed_is_refused_by_line(tmp_path, was, now, said):
    (tmp_path / "split.csv").write_text(SPLIT.replace(was, now))
    with pytest.raises(PedfracError, match=said):
        previous(tmp_path / "split.csv")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_phantoms(root, PhantomConfig(images=12, scale=0.15, workers=1))
    return root


def stems_of(data, among):
    """Return the images that an export's check takes."""
    with labelled_images(data, INFO, among) as images:
        return images.fracture.index["filestem"].tolist()


def test_an_export_takes_the_images_that_a_table_names(data, tmp_path, caplog):
    stems = sorted(stems_of(data, None))
    path = tmp_path / "among.csv"
    path.write_text("\ufefffilestem,call,\n" + "".join(f" {one} ,1,\n" for one in stems[:3]))
    assert sorted(stems_of(data, path)) == stems[:3]
    assert "are those of no image" not in caplog.text
    path.write_text(f"filestem\n{stems[0]}\n0000_x\n")
    assert stems_of(data, path) == stems[:1]
    assert "among.csv: 1 of 2 filestems are those of no image (0000_x)" in caplog.text
    pd.DataFrame({"filestem": stems[:2]}).to_parquet(tmp_path / "among.parquet")
    assert sorted(stems_of(data, tmp_path / "among.parquet")) == stems[:2]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("filestem,age\na,3,12\n", "among.csv line 2: 3 cells, but the header has 2"),
        ("filestem\na\nb\na\n", "line 4: a is listed twice, first on line 2"),
        ("filestems\na\n", "column filestem is missing.*is it 'filestems'"),
        ("filestem\na\n", "none of .* images is named in .*among.csv"),
        (b"filestem\n\xe4\n", "is not UTF-8"),
    ],
)
def test_an_export_refuses_a_table_by_line(data, tmp_path, text, said):
    path = tmp_path / "among.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(PedfracError, match=said):
        stems_of(data, path)
