"""Folders in published layouts become the rows of a manifest."""

import json
from pathlib import Path

import pytest

from synthdetect.datasets import schema
from synthdetect.datasets.layouts import import_folder
from synthdetect.system.errors import UserError
from tests.datasets.conftest import rows

COLUMNS = list(schema.COLUMNS)


def tree(root: Path, *files: str) -> Path:
    """Make empty files below a folder."""
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return root


class TestZeroRealOneFake:
    def test_cnndetection_training_set(self, tmp_path: Path) -> None:
        table = import_folder(
            tree(
                tmp_path,
                "train/car/0_real/1.png",
                "train/car/1_fake/1.png",
                "train/progan/cat/1_fake/2.png",
                "val/car/1_fake/3.png",
            )
        )
        assert list(table.columns) == COLUMNS
        assert rows(table) == [
            ("train/car/0_real/1.png", 0, "train", "", "car"),
            ("train/car/1_fake/1.png", 1, "train", "progan", "car"),
            ("train/progan/cat/1_fake/2.png", 1, "train", "progan", "cat"),
            ("val/car/1_fake/3.png", 1, "val", "progan", "car"),
        ]

    def test_generators_with_and_without_classes(self, tmp_path: Path) -> None:
        table = import_folder(
            tree(
                tmp_path,
                "test/biggan/0_real/a.png",
                "test/biggan/1_fake/a.png",
                "test/san/0_real/b.bmp",
                "test/cyclegan/zebra/0_real/c.png",
                "test/cyclegan/zebra/1_fake/c.png",
                "test/mygan/sunsets/1_fake/d.png",
                "test/car/1_fake/e.png",
            )
        )
        assert rows(table) == [
            ("test/biggan/0_real/a.png", 0, "test"),
            ("test/biggan/1_fake/a.png", 1, "test", "biggan"),
            ("test/car/1_fake/e.png", 1, "test", "", "car"),
            ("test/cyclegan/zebra/0_real/c.png", 0, "test", "", "zebra"),
            ("test/cyclegan/zebra/1_fake/c.png", 1, "test", "cyclegan", "zebra"),
            ("test/mygan/sunsets/1_fake/d.png", 1, "test", "mygan", "sunsets"),
            ("test/san/0_real/b.bmp", 0, "test"),
        ]

    def test_other_depths(self, tmp_path: Path) -> None:
        table = import_folder(
            tree(
                tmp_path,
                "0_real/a.png",
                "1_fake/b.png",
                "1_fake/sdxl/c.png",
                "diffusion_datasets/laion/0_real/d.png",
                "diffusion_datasets/ldm_200/1_fake/e.png",
                "wukong/1_fake/f.png",
            )
        )
        assert rows(table) == [
            ("0_real/a.png", 0),
            ("1_fake/b.png", 1),
            ("1_fake/sdxl/c.png", 1, "", "sdxl"),
            ("diffusion_datasets/laion/0_real/d.png", 0),
            ("diffusion_datasets/ldm_200/1_fake/e.png", 1, "", "ldm_200"),
            ("wukong/1_fake/f.png", 1, "", "wukong"),
        ]

    def test_the_class_called_train_is_no_split(self, tmp_path: Path) -> None:
        table = import_folder(
            tree(
                tmp_path,
                "test/progan/train/0_real/a.png",
                "train/train/1_fake/b.png",
            )
        )
        assert rows(table) == [
            ("test/progan/train/0_real/a.png", 0, "test", "", "train"),
            ("train/train/1_fake/b.png", 1, "train", "progan", "train"),
        ]

    def test_the_class_called_train_beside_other_classes(self, tmp_path: Path) -> None:
        table = import_folder(
            tree(tmp_path, "progan/train/1_fake/a.png", "progan/sofa/1_fake/b.png")
        )
        assert rows(table) == [
            ("progan/sofa/1_fake/b.png", 1, "", "progan", "sofa"),
            ("progan/train/1_fake/a.png", 1, "", "progan", "train"),
        ]

    def test_the_split_called_train(self, tmp_path: Path) -> None:
        table = import_folder(
            tree(tmp_path, "train/0_real/a.png", "train/1_fake/b.png", "validation/1_fake/c.png")
        )
        assert rows(table) == [
            ("train/0_real/a.png", 0, "train"),
            ("train/1_fake/b.png", 1, "train"),
            ("validation/1_fake/c.png", 1, "val"),
        ]

    def test_a_class_not_of_the_training_set_gives_no_generator(self, tmp_path: Path) -> None:
        table = import_folder(tree(tmp_path, "train/zebra/1_fake/a.png"))
        assert rows(table) == [("train/zebra/1_fake/a.png", 1, "train", "", "zebra")]

    def test_a_training_set_inside_another_folder_gives_no_generator(self, tmp_path: Path) -> None:
        table = import_folder(tree(tmp_path, "mygan/train/car/1_fake/a.png"))
        assert rows(table) == [("mygan/train/car/1_fake/a.png", 1, "train", "", "car")]


def test_genimage_ai_is_synthetic_although_it_sorts_first(tmp_path: Path) -> None:
    table = import_folder(
        tree(
            tmp_path,
            "ADM/imagenet_ai_0508_adm/train/ai/033_adm_00134.PNG",
            "ADM/imagenet_ai_0508_adm/val/nature/ILSVRC2012_val_00000001.JPEG",
            "glide/imagenet_glide/val/ai/GLIDE_1000_200_08_808_glide_00033.png",
        )
    )
    assert list(table.columns) == COLUMNS
    assert rows(table) == [
        ("ADM/imagenet_ai_0508_adm/train/ai/033_adm_00134.PNG", 1, "train", "ADM"),
        ("ADM/imagenet_ai_0508_adm/val/nature/ILSVRC2012_val_00000001.JPEG", 0, "val"),
        ("glide/imagenet_glide/val/ai/GLIDE_1000_200_08_808_glide_00033.png", 1, "val", "glide"),
    ]


class TestTrueFake:
    FILES = (
        "Facebook/Fake/FLUX.1/animals/im.0.jpg",
        "PreSocial/Fake/FLUX.1/animals/im.0.png",
        "PreSocial/Fake/StyleGAN2/psi-0.5/7.png",
        "PreSocial/Real/FFHQ/faces/7.png",
    )

    def test_platforms_and_splits(self, tmp_path: Path) -> None:
        root = tree(tmp_path, *self.FILES)
        lists = {"train": ["FLUX.1/animals/im.0"], "val": [], "test": ["FFHQ/faces/7", "gone/a/1"]}
        (root / "split.json").write_text(json.dumps(lists))
        table = import_folder(root)
        assert list(table.columns) == [*COLUMNS, "platform"]
        assert rows(table) == [
            (self.FILES[0], 1, "train", "FLUX.1", "animals", "FLUX.1/animals/im.0", "Facebook"),
            (self.FILES[1], 1, "train", "FLUX.1", "animals", "FLUX.1/animals/im.0", "PreSocial"),
            (self.FILES[2], 1, "", "StyleGAN2", "psi-0.5", "StyleGAN2/psi-0.5/7", "PreSocial"),
            (self.FILES[3], 0, "test", "", "faces", "FFHQ/faces/7", "PreSocial"),
        ]

    def test_without_split_json(self, tmp_path: Path) -> None:
        table = import_folder(tree(tmp_path / "x", *(f"TrueFake/{f}" for f in self.FILES)))
        assert table["split"].tolist() == ["", "", "", ""]
        assert table["label"].tolist() == [1, 1, 1, 0]
        assert table["platform"].tolist() == ["Facebook", "PreSocial", "PreSocial", "PreSocial"]

    @pytest.mark.parametrize(
        "text",
        [
            "no json",
            '["FFHQ/faces/7"]',
            '{"holdout": ["FFHQ/faces/7"]}',
            '{"train": ["FFHQ/faces/7"], "test": ["FFHQ/faces/7"]}',
        ],
    )
    def test_split_json_that_cannot_be_used(self, tmp_path: Path, text: str) -> None:
        root = tree(tmp_path, *self.FILES)
        (root / "split.json").write_text(text)
        with pytest.raises(UserError, match=r"split\.json: .*train, val and test"):
            import_folder(root)


def test_drct_reconstructions_of_photographs_are_synthetic(tmp_path: Path) -> None:
    table = import_folder(
        tree(
            tmp_path,
            "DR/DRCT-2M/sd-v1-4/full_inpainting/train2017/000000000009.png",
            "DR/MSCOCO/full_inpainting/train2017/000000000009.png",
            "DRCT-2M/sd-v1-4/train2017/000000000009.png",
            "MSCOCO/train2017/000000000009.jpg",
            "MSCOCO/val2017/000000000139.jpg",
        )
    )
    nine = "000000000009"
    assert rows(table) == [
        (
            f"DR/DRCT-2M/sd-v1-4/full_inpainting/train2017/{nine}.png",
            *(1, "train", "sd-v1-4/full_inpainting", "", nine),
        ),
        (
            f"DR/MSCOCO/full_inpainting/train2017/{nine}.png",
            *(1, "train", "full_inpainting", "", nine),
        ),
        (f"DRCT-2M/sd-v1-4/train2017/{nine}.png", 1, "train", "sd-v1-4", "", nine),
        (f"MSCOCO/train2017/{nine}.jpg", 0, "train", "", "", nine),
        ("MSCOCO/val2017/000000000139.jpg", 0, "val", "", "", "000000000139"),
    ]


def test_drct_wrapped_in_a_folder_of_its_own_name(tmp_path: Path) -> None:
    table = import_folder(
        tree(tmp_path, "DRCT-2M/MSCOCO/val2017/1.jpg", "DRCT-2M/DRCT-2M/ldm/val2017/1.png")
    )
    assert rows(table) == [
        ("DRCT-2M/DRCT-2M/ldm/val2017/1.png", 1, "val", "ldm", "", "1"),
        ("DRCT-2M/MSCOCO/val2017/1.jpg", 0, "val", "", "", "1"),
    ]


def test_reconstructions_in_genimage_are_not_imported_as_real(tmp_path: Path) -> None:
    root = tree(tmp_path, "DR/GenImage/ADM/imagenet_ai_0508_adm/train/nature/inpainting/1.png")
    with pytest.raises(UserError, match="train/nature/inpainting"):
        import_folder(root)


class TestItwSm:
    FILES = ("ITW-SM/0_real/Facebook_real_1.jpg", "ITW-SM/1_fake/x_8.jpg")

    def test_platform_from_the_name(self, tmp_path: Path) -> None:
        more = ("ITW-SM/1_fake/instagram_2.jpg", "ITW-SM/1_fake/Linkedin_3.jpg")
        table = import_folder(tree(tmp_path, *self.FILES, *more))
        assert list(table.columns) == [*COLUMNS, "platform"]
        assert rows(table) == [
            ("ITW-SM/0_real/Facebook_real_1.jpg", 0, "", "", "", "", "Facebook"),
            ("ITW-SM/1_fake/Linkedin_3.jpg", 1, "", "", "", "", "LinkedIn"),
            ("ITW-SM/1_fake/instagram_2.jpg", 1, "", "", "", "", "Instagram"),
            ("ITW-SM/1_fake/x_8.jpg", 1, "", "", "", "", "X"),
        ]

    def test_one_other_name_leaves_the_platform_out(self, tmp_path: Path) -> None:
        table = import_folder(tree(tmp_path, *self.FILES, "ITW-SM/1_fake/xylophone.jpg"))
        assert list(table.columns) == COLUMNS
        assert table["label"].tolist() == [0, 1, 1]

    @pytest.mark.parametrize("folder", ["0_real/", "./0_real/", "0_real\\", ""])
    def test_platform_from_metadata(self, tmp_path: Path, folder: str) -> None:
        root = tree(tmp_path, "0_real/1.jpg", "1_fake/2.jpg")
        (root / "metadata.csv").write_text(
            "file_name,label,target,platform\n"
            f"{folder}1.jpg,real,0,linkedin\n1_fake/2.jpg,fake,1,x\n1_fake/gone.jpg,fake,1,x\n"
        )
        assert rows(import_folder(root)) == [
            ("0_real/1.jpg", 0, "", "", "", "", "linkedin"),
            ("1_fake/2.jpg", 1, "", "", "", "", "x"),
        ]

    def test_metadata_that_contradicts_the_folder(self, tmp_path: Path) -> None:
        root = tree(tmp_path, "0_real/1.jpg")
        text = "file_name,label,target,platform\n0_real/1.jpg,1,1,x\n"
        (root / "metadata.csv").write_text(text)
        with pytest.raises(UserError, match=r"metadata\.csv: .*'1' of 0_real/1\.jpg"):
            import_folder(root)

    def test_metadata_without_an_image(self, tmp_path: Path) -> None:
        root = tree(tmp_path, "0_real/1.jpg", "0_real/2.jpg")
        (root / "metadata.csv").write_text("file_name,label,target,platform\n0_real/1.jpg,0,0,x\n")
        with pytest.raises(UserError, match=r"does not list 0_real/2\.jpg"):
            import_folder(root)

    def test_metadata_that_lists_an_image_twice(self, tmp_path: Path) -> None:
        root = tree(tmp_path, "0_real/1.jpg")
        text = "file_name,label,target,platform\n0_real/1.jpg,0,0,x\n0_real\\1.jpg,0,0,x\n"
        (root / "metadata.csv").write_text(text)
        with pytest.raises(UserError, match=r"metadata\.csv: .*twice"):
            import_folder(root)

    def test_a_metadata_csv_of_another_kind_is_ignored(self, tmp_path: Path) -> None:
        root = tree(tmp_path, "0_real/1.jpg", "1_fake/2.jpg")
        (root / "metadata.csv").write_bytes(b'file,caption\n1.jpg,"caf\xe9 "x"\n')
        assert rows(import_folder(root)) == [("0_real/1.jpg", 0), ("1_fake/2.jpg", 1)]


def test_synthbuster_with_raise(tmp_path: Path) -> None:
    table = import_folder(
        tree(
            tmp_path,
            "synthbuster/midjourney-v5/r000da54ft.png",
            "synthbuster/stable-diffusion-1-4/r000da54ft.png",
            "synthbuster/real_RAISE_1k/r000da54ft.png",
            "synthbuster/prompts.csv",
        )
    )
    stem = "r000da54ft"
    assert rows(table) == [
        (f"synthbuster/midjourney-v5/{stem}.png", 1, "", "midjourney-v5", "", stem),
        (f"synthbuster/real_RAISE_1k/{stem}.png", 0, "", "", "", stem),
        (f"synthbuster/stable-diffusion-1-4/{stem}.png", 1, "", "stable-diffusion-1-4", "", stem),
    ]


def test_synthbuster_alone_is_all_synthetic(tmp_path: Path) -> None:
    table = import_folder(tree(tmp_path, "firefly/r1t.png", "glide/r1t.png"))
    assert rows(table) == [
        ("firefly/r1t.png", 1, "", "firefly", "", "r1t"),
        ("glide/r1t.png", 1, "", "glide", "", "r1t"),
    ]


def test_b_free_training_set_without_its_masks(tmp_path: Path) -> None:
    table = import_folder(
        tree(
            tmp_path,
            "COCO_real_512/000000000009.png",
            "SD2.1_inpainted_samecat_origBG/000000000009.png",
            "SD2.1_selfconditioned/000000000009.png",
            "bbox/000000000009.png",
            "mask/000000000009.png",
        )
    )
    nine = "000000000009"
    inpainted = "SD2.1_inpainted_samecat_origBG"
    assert rows(table) == [
        (f"COCO_real_512/{nine}.png", 0, "", "", "", nine),
        (f"{inpainted}/{nine}.png", 1, "", inpainted, "", nine),
        (f"SD2.1_selfconditioned/{nine}.png", 1, "", "SD2.1_selfconditioned", "", nine),
    ]


class TestCorvi:
    def test_training_set_of_synthetic_images_only(self, tmp_path: Path) -> None:
        top = "latent_diffusion_trainingset"
        table = import_folder(
            tree(
                tmp_path,
                f"{top}/train/latent_diffusion_noise2image_FFHQ/1.png",
                f"{top}/valid/latent_diffusion_class2image/2.png",
                f"{top}/valid/real_coco.txt",
            )
        )
        assert rows(table) == [
            (
                f"{top}/train/latent_diffusion_noise2image_FFHQ/1.png",
                *(1, "train", "latent_diffusion", "noise2image_FFHQ"),
            ),
            (
                f"{top}/valid/latent_diffusion_class2image/2.png",
                *(1, "val", "latent_diffusion", "class2image"),
            ),
        ]

    def test_training_set_with_added_photographs(self, tmp_path: Path) -> None:
        files = ("val/latent_diffusion_text2img_set0/1.png", "val/real_coco/1.jpg")
        assert rows(import_folder(tree(tmp_path, *files))) == [
            (files[0], 1, "val", "latent_diffusion", "text2img_set0"),
            (files[1], 0, "val"),
        ]

    def test_test_set(self, tmp_path: Path) -> None:
        fakes = (
            "biggan_256",
            "dalle-mini_valid",
            "dalle_2",
            "eg3d",
            "glide_text2img_valid",
            "guided-diffusion_class2image_ImageNet",
            "latent-diffusion_noise2image_LSUNbedrooms",
            "progan_lsun",
            "stable_diffusion_256",
            "stylegan2_ffhq_256x256",
            "stylegan3_r_ffhqu_256x256",
            "taming-transformers_segm2image_valid",
        )
        reals = ("real_coco_valid", "real_imagenet_valid", "real_ucid")
        table = import_folder(tree(tmp_path, *(f"{folder}/1.png" for folder in fakes + reals)))
        expected = [(f"{folder}/1.png", 1, "", folder) for folder in fakes]
        expected += [(f"{folder}/1.png", 0) for folder in reals]  # type: ignore[misc]
        assert rows(table) == sorted(expected)

    def test_test_set_without_photographs_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="images: biggan_256, eg3d"):
            import_folder(tree(tmp_path, "biggan_256/1.png", "eg3d/1.png"))

    def test_unknown_generator_is_named(self, tmp_path: Path) -> None:
        root = tree(tmp_path, "biggan_256/1.png", "admirals/1.png", "real_ucid/1.png")
        with pytest.raises(UserError, match=r"images: admirals\. Rename"):
            import_folder(root)


class TestLabelNames:
    def test_the_name_decides_and_not_its_order_or_case(self, tmp_path: Path) -> None:
        table = import_folder(tree(tmp_path, "ai/a.png", "NATURE/b.png", "Fake/c.png"))
        assert sorted(rows(table)) == [("Fake/c.png", 1), ("NATURE/b.png", 0), ("ai/a.png", 1)]

    def test_generator_and_split(self, tmp_path: Path) -> None:
        table = import_folder(
            tree(
                tmp_path,
                "fake/flux/a.png",
                "fake/flux/v1/b.png",
                "real/coco/c.png",
                "sdxl/fake/d.png",
                "sdxl/real/e.png",
                "test/fake/f.png",
                "train/FAKE/g.png",
                "fake/valid/h.png",
            )
        )
        assert rows(table) == [
            ("fake/flux/a.png", 1, "", "flux"),
            ("fake/flux/v1/b.png", 1),
            ("fake/valid/h.png", 1, "val"),
            ("real/coco/c.png", 0),
            ("sdxl/fake/d.png", 1, "", "sdxl"),
            ("sdxl/real/e.png", 0),
            ("test/fake/f.png", 1, "test"),
            ("train/FAKE/g.png", 1, "train"),
        ]

    @pytest.mark.parametrize(
        "path", ["real/generated/a.png", "fake/x/nature/a.png", "1_fake/real/a.png"]
    )
    def test_label_names_that_contradict_each_other(self, tmp_path: Path, path: str) -> None:
        with pytest.raises(UserError, match=f"'{path}' .*both real and synthetic"):
            import_folder(tree(tmp_path, path))

    def test_a_label_name_that_contradicts_the_layout(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"'real/dalle2/a\.png' .*both real and synthetic"):
            import_folder(tree(tmp_path, "real/dalle2/a.png"))

    def test_label_names_that_agree(self, tmp_path: Path) -> None:
        assert rows(import_folder(tree(tmp_path, "fake/ai/a.png"))) == [("fake/ai/a.png", 1)]

    def test_two_splits(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"train/real/val: .*several splits"):
            import_folder(tree(tmp_path, "train/real/val/a.png"))


class TestUnknownFolders:
    @pytest.mark.parametrize("names", [("0", "1"), ("0.0", "1.0"), ("true", "false")])
    def test_numbers_are_not_labels(self, tmp_path: Path, names: tuple[str, str]) -> None:
        root = tree(tmp_path, *(f"{name}/a.png" for name in names))
        with pytest.raises(UserError) as caught:
            import_folder(root)
        message = str(caught.value)
        assert message.startswith(f"{tmp_path}: ")
        assert f": {', '.join(sorted(names))}. Rename" in message
        assert "0_real, 1_fake, ai, " in message
        assert "(path,label)" in message

    def test_one_unknown_sibling(self, tmp_path: Path) -> None:
        root = tree(tmp_path, "0_real/a.png", "1_fake/a.png", "misc/a.png")
        with pytest.raises(UserError, match=r"images: misc\. Rename"):
            import_folder(root)

    def test_images_beside_the_label_folders(self, tmp_path: Path) -> None:
        root = tree(tmp_path, "0_real/a.png", "1_fake/a.png", "stray.png")
        with pytest.raises(UserError, match=r"images: \(the folder itself\)\. Rename"):
            import_folder(root)

    def test_twenty_are_listed(self, tmp_path: Path) -> None:
        root = tree(tmp_path, *(f"d{number:02}/a.png" for number in range(23)))
        with pytest.raises(UserError, match=r"d18, d19 and 3 more\. Rename") as caught:
            import_folder(root)
        assert "d20" not in str(caught.value)


class TestFiles:
    def test_dots_and_upper_case(self, tmp_path: Path) -> None:
        names = ["a.b.c.PNG", "b.Jpeg", "c.tar.gz.webp", "d.TIF", "é.jpg"]
        table = import_folder(tree(tmp_path, *(f"real/{name}" for name in names)))
        assert table["path"].tolist() == [f"real/{name}" for name in names]

    def test_stem_is_cut_at_the_last_dot_only(self, tmp_path: Path) -> None:
        table = import_folder(tree(tmp_path, "dalle2/r1.v2.PNG"))
        assert table["source_id"].tolist() == ["r1.v2"]

    def test_other_files_and_hidden_ones_are_skipped(self, tmp_path: Path) -> None:
        table = import_folder(
            tree(
                tmp_path,
                "fake/a.png",
                "fake/._a.png",
                "fake/.hidden.png",
                "fake/notes.md",
                "fake/noextension",
                ".cache/b.png",
                "__MACOSX/fake/c.png",
                "docs/train.pickle",
                "list.csv",
            )
        )
        assert rows(table) == [("fake/a.png", 1)]

    def test_links_to_folders_are_not_followed(self, tmp_path: Path) -> None:
        root = tree(tmp_path / "root", "fake/a.png")
        (root / "fake" / "loop").symlink_to(root)
        assert rows(import_folder(root)) == [("fake/a.png", 1)]

    @pytest.mark.parametrize("files", [(), ("real/notes.txt",)])
    def test_no_images(self, tmp_path: Path, files: tuple[str, ...]) -> None:
        with pytest.raises(UserError, match=f"{tmp_path}: holds no images"):
            import_folder(tree(tmp_path, *files))

    def test_no_folder(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="gone: is not a folder"):
            import_folder(tmp_path / "gone")

    def test_name_that_is_not_utf8(self, tmp_path: Path) -> None:
        root = tree(tmp_path, "real/a.png")
        (root / "real" / "b\udcff.png").touch()
        with pytest.raises(UserError, match="not UTF-8"):
            import_folder(root)

    def test_types(self, tmp_path: Path) -> None:
        table = import_folder(tree(tmp_path, "fake/b.png", "real/a.png"))
        assert table["label"].dtype == "int64"
        assert table.index.tolist() == [0, 1]
        assert not table.isna().any().any()


def test_a_folder_with_a_manifest_is_refused_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "upscaled").mkdir()
    (tmp_path / "upscaled" / "a.png").touch()
    (tmp_path / "manifest.csv").write_text("path,label\n")
    with pytest.raises(UserError, match=r"Perhaps .*/manifest\.csv"):
        import_folder(tmp_path)
