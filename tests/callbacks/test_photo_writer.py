from flatten_dense.callbacks.photo_writer import PhotoWriter


def test_a_folder_is_made_when_something_goes_into_it(tmp_path):
    writer = PhotoWriter(tmp_path / "out")
    assert not (tmp_path / "out").exists()
    writer.path_of("overlays", "a.png").write_text("")
    assert (tmp_path / "out/overlays/a.png").exists()
