"""Features that somebody published: every kind of file, what is what, and what is refused."""

import json
import os
import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from layouts import Table, dadn, tables
from safetensors.torch import save_file
from scipy.io import savemat

from xshot_bench import InputError
from xshot_bench.datasets import scratch
from xshot_bench.datasets.base import DatasetOptions
from xshot_bench.datasets.features import Features

CLASSES = 6
SIDECAR = """
file = "{file}"
image_train = "x"
text_train = "y"
label_train = "z"
image_test = "x2"
text_test = "y2"
label_test = "z2"
"""


def read(path: Path | None, skip: bool = False) -> Features:
    return Features.open(DatasetOptions(path, skip))


def refusal(path: Path | None) -> str:
    with pytest.raises(InputError) as error:
        read(path)
    return str(error.value)


@pytest.fixture
def made() -> dict[str, Table]:
    return tables(CLASSES)


def check(data: Features, made: dict[str, Table], atol: float = 0.0) -> None:
    """The data is the tables, one below the other."""
    features = data.features()
    assert np.allclose(features.image, np.concatenate([t.image for t in made.values()]), rtol=0, atol=atol)
    assert np.allclose(features.text, np.concatenate([t.text for t in made.values()]), rtol=0, atol=atol)
    assert features.image.dtype == features.text.dtype == np.float32
    assert features.label.tolist() == np.concatenate([t.label for t in made.values()]).tolist()
    assert [data.parts[i] for i in features.ids] == [part for part, t in made.items() for _ in t.label]
    assert [item.id for item in data.items] == list(features.ids)
    assert [features.classes[k] for k in features.label] == [item.label for item in data.items]


def named(made: dict[str, Table], base: int = 0) -> dict[str, np.ndarray]:
    train, test = made["train"], made["test"]
    return {"x": train.image, "y": train.text, "z": train.label + base, "x2": test.image, "y2": test.text,
            "z2": test.label + base}  # fmt: skip


def save_h5(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array


def save_matlab_73(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """As MATLAB writes it: 512 bytes of its own before the HDF5, columns first, class names as attributes."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in arrays.items():
            two = array.reshape(len(array), -1)
            file[name] = two.T.astype(np.float64)
            file[name].attrs["MATLAB_class"] = np.bytes_("double")
    with path.open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file")


SAVERS = {
    "f.npz": lambda path, arrays: np.savez(path, **arrays),
    "f.safetensors": lambda path, arrays: save_file({k: torch.tensor(v) for k, v in arrays.items()}, path),
    "v5.mat": savemat,
    "v73.mat": save_matlab_73,
    "f.h5": save_h5,
    "f.h5py": save_h5,
}


@pytest.mark.parametrize("file", SAVERS)
@pytest.mark.parametrize("base", [0, 1])
def test_every_kind_of_file_with_named_keys_and_both_label_bases(tmp_path, made, file, base):
    SAVERS[file](tmp_path / file, named(made, base))
    (tmp_path / "features.toml").write_text(SIDECAR.format(file=file))
    data = read(tmp_path)
    check(data, made)
    assert data.features().joint is False
    assert data.classes == tuple(f"class {n + base}" for n in range(CLASSES))
    assert read(tmp_path / "features.toml").digest == data.digest
    assert {(len(data.split().train[c]), len(data.split().test[c])) for c in data.classes} == {(4, 2)}


@pytest.mark.parametrize("file", SAVERS)
def test_what_is_too_large_for_the_memory_lies_in_files_and_is_the_same(tmp_path, made, file, monkeypatch):
    made["train"].image[3, 0] = np.nan
    SAVERS[file](tmp_path / file, named(made))
    (tmp_path / "features.toml").write_text(SIDECAR.format(file=file))
    small = read(tmp_path, skip=True)
    monkeypatch.setattr(scratch, "KEPT", 0)
    monkeypatch.setattr(scratch, "ROWS", 5)
    large = read(tmp_path, skip=True)
    assert large.digest == small.digest and len(large.items) == len(small.items) == 6 * CLASSES - 1
    for name in ("image", "text"):
        assert isinstance(getattr(large.features(), name), np.memmap)
        assert not isinstance(getattr(small.features(), name), np.memmap)
        assert np.array_equal(getattr(large.features(), name), getattr(small.features(), name))


def test_one_array_of_a_file_of_its_own_is_not_copied(tmp_path):
    table = tables(CLASSES)["train"]
    for name in ("image", "text", "label"):
        np.save(tmp_path / f"{name}.npy", getattr(table, name))
    (tmp_path / "features.toml").write_text('image = "image.npy"\ntext = "text.npy"\nlabel = "label.npy"')
    features = read(tmp_path).features()
    assert (features.image.filename, features.text.filename) == (tmp_path / "image.npy", tmp_path / "text.npy")
    assert np.array_equal(features.image, table.image)


def test_room_can_be_had_where_the_system_sets_none_aside(monkeypatch):
    monkeypatch.delattr(os, "posix_fallocate")
    found = scratch.room((3, 700_000), np.int8, kept=0)
    assert isinstance(found, np.memmap) and found.shape == (3, 700_000) and not found.any()
    found[2, -1] = 7
    assert found[2, -1] == 7


def test_all_settings_of_the_sidecar(tmp_path):
    table = tables(CLASSES, dims=(5, 5))["train"]
    class_text = np.eye(CLASSES, 5, dtype=np.float32)
    np.savez(tmp_path / "a.npz", v=table.image, n=table.label + 3)
    np.save(tmp_path / "t.npy", table.text)
    np.savez(tmp_path / "c.npz", words=class_text)
    names = [f"name {c}" for c in range(CLASSES)]
    fields = {"file": "a.npz", "image": "v", "text": "t.npy", "label": "n", "label_base": 3, "classes": names}
    more = {"joint": True, "logit_scale": 100, "class_text": "c.npz:words"}
    (tmp_path / "features.json").write_text(json.dumps(fields | more))
    data = read(tmp_path)
    features = data.features()
    assert (features.joint, features.logit_scale, features.classes) == (True, 100.0, tuple(names))
    assert np.array_equal(features.class_text, class_text)
    assert np.array_equal(features.text, table.text)
    assert features.label.tolist() == table.label.tolist()
    assert not data.parts


KNOWN = {
    "DSCMR's Pascal": ("p.mat", "train_img train_txt train_img_lab test_img test_txt test_img_lab", 0),
    "MARS": ("wiki.mat",
             "train_imgs_deep train_texts_doc train_imgs_labels test_imgs_deep test_texts_doc test_imgs_labels", 1),
    "deep_doc2vec": ("nus_wide_deep_doc2vec_data_42941.h5py",
                     "train_imgs_deep train_text train_imgs_labels test_imgs_deep test_text test_imgs_labels", 0),
    "XMedia": ("XMediaFeatures.mat", "I_tr_CNN T_tr_BOW trImgCat I_te_CNN T_te_BOW teImgCat", 1),
    "plain": ("f.npz", "image_train text_train label_train image_test text_test label_test", 0),
}  # fmt: skip
TEXT_LABELS = {"MARS": "train_texts_labels test_texts_labels", "deep_doc2vec": "train_texts_labels test_texts_labels",
               "XMedia": "trTxtCat teTxtCat"}  # fmt: skip


@pytest.mark.parametrize("dump", KNOWN)
@pytest.mark.parametrize("one_hot", [False, True])
def test_known_dumps_need_no_sidecar(tmp_path, made, dump, one_hot):
    file, keys, base = KNOWN[dump]
    arrays = dict(zip(keys.split(), named(made).values(), strict=True))
    for number, key in enumerate(TEXT_LABELS.get(dump, "").split()):
        arrays[key] = list(named(made).values())[2 + 3 * number]
    for key, array in arrays.items():
        if array.ndim == 1:
            arrays[key] = np.eye(CLASSES)[array] if one_hot else array[:, None] + base
    arrays["unused"] = np.ones((2, 2))
    {**SAVERS, file: save_h5 if file.endswith("h5py") else SAVERS.get(file, savemat)}[file](tmp_path / file, arrays)
    check(read(tmp_path), made)
    check(read(tmp_path / file), made)


def test_labels_of_all_parts_in_one_array(tmp_path, made):
    label = np.concatenate([made["train"].label, made["test"].label]) + 1
    arrays = {"I_tr": made["train"].image, "I_te": made["test"].image, "T_tr": made["train"].text,
              "T_te": made["test"].text, "I_labs": label, "T_labs": label, "V": np.ones((3, 3))}  # fmt: skip
    savemat(tmp_path / "XMediaNetFeatures.mat", arrays)
    check(read(tmp_path), made)
    savemat(
        tmp_path / "XMediaNetFeatures.mat",
        {**arrays, **dict.fromkeys(("I_labs", "T_labs"), np.eye(CLASSES)[label - 1])},
    )
    check(read(tmp_path), made)
    savemat(tmp_path / "XMediaNetFeatures.mat", {**arrays, "I_labs": label[:-1]})
    assert "I_labs has 35 entries for 36 rows" in refusal(tmp_path)


def test_text_labels_count_from_where_image_labels_do(tmp_path, made):
    """Although no text of the test part is of the first class."""
    arrays = named(made, base=1)
    kept = arrays["z2"] != 1
    arrays |= {"x2": arrays["x2"][kept], "y2": arrays["y2"][kept], "z2": arrays["z2"][kept]}
    np.savez(tmp_path / "f.npz", **arrays)
    (tmp_path / "features.toml").write_text(SIDECAR.format(file="f.npz") + 'text_label_test = "z2"\n')
    assert read(tmp_path).features().label[-sum(kept) :].tolist() == made["test"].label[kept].tolist()


def test_dadns_text_files(tmp_path, made):
    dadn(tmp_path, made, CLASSES)
    data = read(tmp_path)
    check(data, made, atol=1e-6)
    assert data.items[1].id == "n04341_1_train.JPEG"
    assert data.features().class_text.shape == (CLASSES, 3)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_clip4cmrs_form_one_file_a_part(tmp_path, suffix):
    made = tables(CLASSES, dims=(4, 4))
    for part, table in made.items():
        SAVERS[f"f{suffix}"](
            tmp_path / f"clip_{part}{suffix}", {"image": table.image, "text": table.text, "label": table.label}
        )
    data = read(tmp_path)
    check(data, made)
    assert (data.features().joint, data.features().logit_scale) == (True, 100.0)


class Evil:
    def __reduce__(self):
        return (print, ("a pickle was run",))


@pytest.mark.parametrize("file", ["clip_train.pkl", "data.pickle", "a.pt"])
def test_pickles_are_refused_with_what_to_do(tmp_path, file, capfd):
    (tmp_path / file).write_bytes(pickle.dumps(Evil()))
    for said in (refusal(tmp_path), refusal(tmp_path / file)):
        assert "is a pickle, which can run any program" in said
        assert "numpy.savez(" in said
    assert "a pickle was run" not in capfd.readouterr().out


def test_a_pickle_beside_what_was_made_of_it_is_no_matter(tmp_path):
    made = tables(CLASSES, dims=(4, 4))
    for part, table in made.items():
        np.savez(tmp_path / f"clip_{part}.npz", **table._asdict())
        (tmp_path / f"clip_{part}.pkl").write_bytes(pickle.dumps(Evil()))
    check(read(tmp_path), made)


def test_pickles_within_other_files_are_not_run(tmp_path, capfd):
    np.savez(tmp_path / "a.npz", image=np.array([Evil()], dtype=object), text=np.ones((1, 2)), label=np.ones(1))
    assert "cannot be read" in refusal(tmp_path)
    np.save(tmp_path / "b.npy", np.array([Evil()], dtype=object))
    (tmp_path / "features.toml").write_text('image = "b.npy"\ntext = "a.npz:text"\nlabel = "a.npz:label"\n')
    assert "b.npy cannot be read" in refusal(tmp_path)
    assert "a pickle was run" not in capfd.readouterr().out


def test_matlab_cells_structs_and_sparse_matrices(tmp_path, made):
    from scipy.sparse import csc_matrix

    arrays = named(made)
    names = np.array([f"c{k}" for k in arrays["z"]], dtype=object)
    savemat(
        tmp_path / "a.mat", {**arrays, "x": csc_matrix(arrays["x"]), "z": names, "z2": [f"c{k}" for k in arrays["z2"]]}
    )
    (tmp_path / "features.toml").write_text(SIDECAR.format(file="a.mat"))
    check(read(tmp_path), made)
    assert read(tmp_path).classes == tuple(f"c{k}" for k in range(CLASSES))
    savemat(tmp_path / "a.mat", {**arrays, "x": {"field": arrays["y"]}})
    assert "images of train are [('field', 'O')] of shape (1, 1). Expected: numbers" in refusal(tmp_path)
    savemat(tmp_path / "a.mat", {**arrays, "z": np.array(["a", 3.0], dtype=object)})
    assert "'z' holds objects" in refusal(tmp_path)


def test_links_and_external_data_are_not_followed(tmp_path, made):
    outside = tmp_path.parent / f"{tmp_path.name}-secret.h5"
    save_h5(outside, named(made))
    raw = tmp_path.parent / f"{tmp_path.name}-secret.raw"
    raw.write_bytes(bytes(24 * 6 * 4))
    save_h5(tmp_path / "f.h5", {k: v for k, v in named(made).items() if k not in "xy"})
    with h5py.File(tmp_path / "f.h5", "a") as file:
        file["x"] = h5py.ExternalLink(str(outside), "x")
        file.create_dataset("y", (24, 6), "f4", external=[(str(raw), 0, 24 * 6 * 4)])
        file["again"] = h5py.SoftLink("/z")
        file.create_group("deep")["self"] = file["/"]
    (tmp_path / "features.toml").write_text(SIDECAR.format(file="f.h5"))
    assert "no array 'x'" in refusal(tmp_path)
    (tmp_path / "features.toml").write_text(SIDECAR.format(file="f.h5").replace('"x"', '"y"'))
    assert "lies in another file, which is not followed" in refusal(tmp_path)
    (tmp_path / "features.toml").write_text(SIDECAR.format(file=f"../{outside.name}"))
    assert "leads outside the folder" in refusal(tmp_path)


def test_bad_rows_are_said_at_once_or_left_out(tmp_path, made):
    arrays = named(made, base=1)
    arrays["x"][3, 2] = np.inf
    arrays["y2"][5] = np.nan
    arrays["z"] = arrays["z"].astype(float)
    arrays["z"][[7, 8]] = 2.5, np.nan
    np.savez(tmp_path / "f.npz", **arrays)
    (tmp_path / "features.toml").write_text(SIDECAR.format(file="f.npz"))
    said = refusal(tmp_path)
    assert "4 of 36 items are bad" in said
    for words in ("train row 4: it has a value that is not finite", "test row 6: it has a value that is not finite",
                  "train row 8: its label is no class", "train row 9: its label is no class"):  # fmt: skip
        assert words in said
    data = read(tmp_path, skip=True)
    assert len(data.features().image) == len(data.items) == 32
    kept = [n for n in range(24) if n not in (3, 7, 8)]
    assert np.array_equal(data.features().image[:21], made["train"].image[kept])
    assert data.notes == (
        "4 of 36 items are bad and left out: it has a value that is not finite (2), its label is no class (2)",
    )


def test_labels_beyond_the_classes_and_labels_that_differ(tmp_path, made):
    arrays = named(made)
    arrays["t"] = arrays["z"].copy()
    arrays["t"][2] += 1
    np.savez(tmp_path / "f.npz", **arrays)
    sidecar = SIDECAR.format(file="f.npz") + 'text_label_train = "t"\n'
    (tmp_path / "features.toml").write_text(sidecar)
    assert "train row 3: its image has the class" in refusal(tmp_path)
    (tmp_path / "features.toml").write_text(SIDECAR.format(file="f.npz") + 'classes = ["a", "b", "c", "d", "e"]\n')
    assert "6 of 36 items are bad" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"x": np.ones((23, 6))}, "'train' has 23 images, 24 texts, 24 labels"),
        ({"x": np.ones((6, 24))}, "An array lies on its side"),
        ({"x": np.ones(24)}, "images of train are float64 of shape (24,)"),
        ({"x": np.array([["a"] * 6] * 24)}, "Expected: numbers, a row for every item"),
        ({"x2": np.ones((12, 7))}, "the images of 'test' have 7 columns where those before have 6"),
        ({"z": np.ones((24, 2, 2))}, "Expected: a class for every row"),
        ({"z": np.arange(24) % 6 + 7, "z2": np.arange(12) % 6 + 7}, "the smallest label is 7. Say with label_base"),
        ({"z2": np.array(["a"] * 12)}, "some labels are names and some are numbers"),
    ],
)
def test_arrays_that_do_not_fit_are_one_message(tmp_path, made, change, said):
    np.savez(tmp_path / "f.npz", **{**named(made), **change})
    (tmp_path / "features.toml").write_text(SIDECAR.format(file="f.npz"))
    assert said in refusal(tmp_path)


@pytest.mark.parametrize(
    ("sidecar", "said"),
    [
        ("image_train = 3", "image_train is 3"),
        ("label_base = true", "label_base is True"),
        ("colour = 'red'", "a field 'colour' that there is not"),
        ("file = ", "cannot be read"),
        ("file = 'f.npz'\nimage = 'nope'\ntext = 'y'\nlabel = 'z'", "has no array 'nope'. It has: x, y, z, x2, y2, z2"),
        ("file = 'g.npz'\nimage = 'x'\ntext = 'y'\nlabel = 'z'", "g.npz cannot be read: No such file"),
        ("file = 'f.npz'\nimage = 'x'\nlabel = 'z'", "the texts of the items are not named"),
        ("file = 'f.npz'\nimage = 'x'\ntext = 'y'", "the labels of the items are not named"),
        ("file = 'f.npz'\nimage = 'x'\ntext = 'y'\nlabel = 'z'\njoint = true", "so they are in no joint space"),
        (
            "file = 'f.npz'\nimage = 'x'\ntext = 'y'\nlabel = 'z'\nclass_text = 'x2'",
            "class_text is (12, 6), not (6, 3)",
        ),
        ("image = 'f.doc:x'\ntext = 'y'\nlabel = 'z'", "f.doc is none of the kinds that are read"),
    ],
)
def test_a_sidecar_that_is_wrong_is_one_message(tmp_path, made, sidecar, said):
    np.savez(tmp_path / "f.npz", **named(made))
    (tmp_path / "features.toml").write_text(sidecar)
    assert said in refusal(tmp_path)


@pytest.mark.parametrize("file", SAVERS)
def test_damaged_files_are_one_message(tmp_path, made, file):
    path = tmp_path / file
    SAVERS[file](path, named(made))
    path.write_bytes(path.read_bytes()[:-20])
    (tmp_path / "features.toml").write_text(SIDECAR.format(file=file))
    assert f"{file} cannot be read" in refusal(tmp_path)
    path.write_bytes(b"")
    assert f"{file} cannot be read" in refusal(tmp_path)


def test_nothing_known_is_said_with_what_to_write(tmp_path, made):
    assert "--root PATH" in refusal(None)
    assert "neither features.toml nor a dump that is known" in refusal(tmp_path)
    np.savez(tmp_path / "f.npz", **named(made))
    assert "known by its arrays (x, y, z, x2, y2, z2)" in refusal(tmp_path / "f.npz")
