from coyo_labeler import storage
from coyo_labeler.report.paths import shown


def test_a_published_path_does_not_show_whose_folder_it_was_in(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "work").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "home" / "work")
    assert shown("out/labels") == "out/labels"
    assert shown(str(tmp_path / "home" / "work" / "out" / "labels")) == "out/labels"
    assert shown(storage.absolute("../other #1")) == "../other #1"
    assert shown(str(tmp_path / "home" / "labels")) == "~/labels"
    assert shown("~/labels") == "~/labels"
    assert shown("/data/labels") == "/data/labels"
    assert shown("s3://me:secret@bucket/labels") == "s3://***@bucket/labels"
