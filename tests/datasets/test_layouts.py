import json
from pathlib import Path

import pandas as pd
import pytest

from synthdetect.datasets import layouts
from synthdetect.datasets.layouts import import_csv, import_folder
from synthdetect.system.errors import UserError

COLUMNS = ["path", "label", "split", "generator", "category", "source_id"]


def tree(root: Path, *files: str) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return root


def rows(table: pd.DataFrame) -> list[tuple[object, ...]]:
    """The rows without trailing empty fields, so that expectations stay short."""
    found = []
    for row in table.itertuples(index=False):
        values = list(row)
        while values[-1] == "":
            values.pop()
        found.append(tuple(values))
    return found


def csv(folder: Path, text: str) -> Path:
    file = folder / "list.csv"
    file.write_text(text, encoding="utf-8")
    return file


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
        with pytest.raises(UserError, match=r"split\.json: must be a JSON object"):
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


def test_reconstructions_of_genimage_are_not_taken_for_nature(tmp_path: Path) -> None:
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
        with pytest.raises(UserError, match=r"metadata\.csv: labels 0_real/1\.jpg '1'"):
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
        with pytest.raises(UserError, match="lists a file twice"):
            import_folder(root)

    def test_metadata_of_something_else_is_passed_over(self, tmp_path: Path) -> None:
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
    def test_training_set_of_fakes_only(self, tmp_path: Path) -> None:
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

    def test_training_set_with_reals_added(self, tmp_path: Path) -> None:
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

    def test_test_set_without_reals_is_not_guessed(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="images: biggan_256, eg3d"):
            import_folder(tree(tmp_path, "biggan_256/1.png", "eg3d/1.png"))

    def test_unknown_generator_is_named(self, tmp_path: Path) -> None:
        root = tree(tmp_path, "biggan_256/1.png", "admirals/1.png", "real_ucid/1.png")
        with pytest.raises(UserError, match=r"images: admirals\. Rename"):
            import_folder(root)


class TestLabelNames:
    @pytest.mark.parametrize(
        ("folder", "label"),
        [
            ("FAKE", 1),
            ("REAL", 0),
            ("ai", 1),
            ("nature", 0),
            ("Fake", 1),
            ("Real", 0),
            ("AI-Generated", 1),
            ("human", 0),
            ("synthetic", 1),
        ],
    )
    def test_polarity_is_by_name(self, tmp_path: Path, folder: str, label: int) -> None:
        assert rows(import_folder(tree(tmp_path, f"{folder}/a.png"))) == [
            (f"{folder}/a.png", label)
        ]

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
    def test_labels_that_disagree(self, tmp_path: Path, path: str) -> None:
        with pytest.raises(UserError, match=f"'{path}' says both real and synthetic"):
            import_folder(tree(tmp_path, path))

    def test_a_layout_s_own_name_that_disagrees(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"'real/dalle2/a\.png' says both"):
            import_folder(tree(tmp_path, "real/dalle2/a.png"))

    def test_labels_that_agree(self, tmp_path: Path) -> None:
        assert rows(import_folder(tree(tmp_path, "fake/ai/a.png"))) == [("fake/ai/a.png", 1)]

    def test_two_splits(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="train/real/val: the folder is in several splits"):
            import_folder(tree(tmp_path, "train/real/val/a.png"))


class TestUnknownFolders:
    @pytest.mark.parametrize("names", [("0", "1"), ("0.0", "1.0"), ("true", "false")])
    def test_numbers_are_no_labels(self, tmp_path: Path, names: tuple[str, str]) -> None:
        root = tree(tmp_path, *(f"{name}/a.png" for name in names))
        with pytest.raises(UserError) as caught:
            import_folder(root)
        message = str(caught.value)
        assert message.startswith(f"{tmp_path}: no known layout")
        assert f": {', '.join(sorted(names))}. Rename them (known: 0_real, 1_fake, ai, " in message
        assert "manifest CSV (path,label)" in message

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

    def test_what_is_no_image_is_passed_over(self, tmp_path: Path) -> None:
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
        with pytest.raises(UserError, match=r"gone: is not a folder\."):
            import_folder(tmp_path / "gone")

    def test_name_that_is_not_utf8(self, tmp_path: Path) -> None:
        root = tree(tmp_path, "real/a.png")
        (root / "real" / "b\udcff.png").touch()
        with pytest.raises(UserError, match="a name is not UTF-8"):
            import_folder(root)

    def test_types(self, tmp_path: Path) -> None:
        table = import_folder(tree(tmp_path, "fake/b.png", "real/a.png"))
        assert table["label"].dtype == "int64"
        assert table.index.tolist() == [0, 1]
        assert not table.isna().any().any()

    def test_suffixes_are_lower_case(self) -> None:
        assert {".jpg", ".jpeg", ".png", ".webp", ".tiff", ".avif"} <= layouts.IMAGE_SUFFIXES
        assert all(s == s.lower() and s.startswith(".") for s in layouts.IMAGE_SUFFIXES)


class TestDialects:
    def test_spai(self, tmp_path: Path) -> None:
        table = import_csv(
            csv(tmp_path, "image,class,split\nsd3/b_7.webp,1,test\nRAISE\\a.tif,0,valid\n")
        )
        assert list(table.columns) == COLUMNS
        assert rows(table) == [("RAISE/a.tif", 0, "val"), ("sd3/b_7.webp", 1, "test")]

    def test_clipdet(self, tmp_path: Path) -> None:
        text = "filename,typ\nb.png,dalle2\na.png,REAL\nc.png,nature\nd.png,fake\n"
        assert rows(import_csv(csv(tmp_path, text))) == [
            ("a.png", 0),
            ("b.png", 1, "", "dalle2"),
            ("c.png", 0),
            ("d.png", 1),
        ]

    def test_clipdet_without_a_type(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"list\.csv: the label '' is unknown"):
            import_csv(csv(tmp_path, "filename,typ\na.png,\n"))

    def test_synthwildx(self, tmp_path: Path) -> None:
        text = "url,filename,typ\nhttps://x/1,dalle3/F.jpg,dalle3\nhttps://x/2,real/G.jpg,real\n"
        table = import_csv(csv(tmp_path, text))
        assert list(table.columns) == [*COLUMNS, "url"]
        assert rows(table) == [
            ("dalle3/F.jpg", 1, "", "dalle3", "", "", "https://x/1"),
            ("real/G.jpg", 0, "", "", "", "", "https://x/2"),
        ]

    def test_b_free(self, tmp_path: Path) -> None:
        text = "filename,label\na.png,0\nb.png,1\nc.png,REAL\nd.png,FAKE\n"
        assert rows(import_csv(csv(tmp_path, text))) == [
            ("a.png", 0),
            ("b.png", 1),
            ("c.png", 0),
            ("d.png", 1),
        ]

    def test_b_free_viral(self, tmp_path: Path) -> None:
        header = "filename,label,source_id,date,days_since_1st_post,w,h,md5,url"
        row = "REAL/Ed7/1.jpg,REAL,Ed7,2020-07-26,0.0,940.0,580.0,75eb,http://k/1.JPG"
        table = import_csv(csv(tmp_path, f"{header}\n{row}\n"))
        assert list(table.columns) == [*COLUMNS, *header.split(",")[3:]]
        assert rows(table) == [
            (
                *("REAL/Ed7/1.jpg", 0, "", "", "", "Ed7"),
                *("2020-07-26", "0.0", "940.0", "580.0", "75eb", "http://k/1.JPG"),
            )
        ]

    def test_rewind(self, tmp_path: Path) -> None:
        text = (
            "filename,src_dataset,src,label,format,estimated_QF\n"
            "R/2.jpg,FOSID,Gaza2,FAKE,JPEG,85\nR/1.png,ammeba,Gaza2,FAKE,PNG,200\n"
        )
        table = import_csv(csv(tmp_path, text))
        assert list(table.columns) == [*COLUMNS, "src_dataset", "format", "estimated_QF"]
        assert rows(table) == [
            ("R/1.png", 1, "", "", "", "Gaza2", "ammeba", "PNG", "200"),
            ("R/2.jpg", 1, "", "", "", "Gaza2", "FOSID", "JPEG", "85"),
        ]

    def test_ancestree_keeps_the_tree_together(self, tmp_path: Path) -> None:
        text = (
            "filename,parent,src,level,type,label,split\n"
            "T/1.jpg,s/r0.png,s/r0.png,1,dalle2,FAKE,dev\nT/2.jpg,s/r1.png,s/r1.png,1,raise,REAL,test\n"
        )
        table = import_csv(csv(tmp_path, text))
        assert list(table.columns) == [*COLUMNS, "parent", "level"]
        assert rows(table) == [
            ("T/1.jpg", 1, "dev", "dalle2", "", "s/r0.png", "s/r0.png", "1"),
            ("T/2.jpg", 0, "test", "", "", "s/r1.png", "s/r1.png", "1"),
        ]

    def test_itw_sm(self, tmp_path: Path) -> None:
        text = "file_name,label,target,platform\n1_fake/x_8.jpg,fake,1,x\n0_real/a.jpg,real,0,x\n"
        table = import_csv(csv(tmp_path, text))
        assert list(table.columns) == [*COLUMNS, "target", "platform"]
        assert rows(table) == [
            ("0_real/a.jpg", 0, "", "", "", "", "0", "x"),
            ("1_fake/x_8.jpg", 1, "", "", "", "", "1", "x"),
        ]

    def test_openfake(self, tmp_path: Path) -> None:
        text = (
            "file_name,prompt,label,model,type,release_date\n"
            '1.png,"a cat, asleep",fake,flux.1-dev,lora,2024-08\n2.jpg,,real,imagenet,,\n'
        )
        table = import_csv(csv(tmp_path, text))
        assert list(table.columns) == [*COLUMNS, "prompt", "type", "release_date"]
        assert rows(table) == [
            ("1.png", 1, "", "flux.1-dev", "", "", "a cat, asleep", "lora", "2024-08"),
            ("2.jpg", 0),
        ]

    def test_unbiased_genimage(self, tmp_path: Path) -> None:
        text = (
            "path,generator,mode,width,height,compression_rate\n"
            "w/ai/1.png,wukong,train,512,512,\nw/nature/2.JPEG,nature,val,500,375,96\n"
        )
        table = import_csv(csv(tmp_path, text))
        assert list(table.columns) == [*COLUMNS, "width", "height", "compression_rate"]
        assert rows(table) == [
            ("w/ai/1.png", 1, "train", "wukong", "", "", "512", "512"),
            ("w/nature/2.JPEG", 0, "val", "", "", "", "500", "375", "96"),
        ]

    def test_every_dialect_is_reachable(self) -> None:
        """No dialect is hidden behind an earlier one that asks for less."""
        from synthdetect.datasets.dialects import DIALECTS

        for place, dialect in enumerate(DIALECTS):
            first = next(d for d in DIALECTS if set(d.needs) <= set(dialect.needs))
            assert first is dialect, f"{DIALECTS[place].name} is hidden by {first.name}"


class TestCsv:
    def test_standard_columns_of_a_foreign_list_are_kept(self, tmp_path: Path) -> None:
        text = "filename,label,generator,split\na.png,fake,sdxl,extra\nb.png,real,sdxl,VAL\n"
        assert rows(import_csv(csv(tmp_path, text))) == [
            ("a.png", 1, "extra", "sdxl"),
            ("b.png", 0, "val"),
        ]

    def test_byte_order_mark_and_blank_lines(self, tmp_path: Path) -> None:
        file = tmp_path / "list.csv"
        file.write_bytes("\ufefffilename,label\r\n\r\né.png,real\r\n".encode())
        assert rows(import_csv(file)) == [("é.png", 0)]

    def test_values_that_look_like_missing_ones(self, tmp_path: Path) -> None:
        text = "filename,label,source_id,w\nNA.png,fake,null,NaN\n"
        assert rows(import_csv(csv(tmp_path, text))) == [
            ("NA.png", 1, "", "", "", "null", "NaN"),
        ]

    def test_paths_are_made_uniform(self, tmp_path: Path) -> None:
        text = "filename,label\n.\\b\\1.png,fake\na//2.png,fake\n/data/3.png,fake\n"
        paths = import_csv(csv(tmp_path, text))["path"].tolist()
        assert paths == ["/data/3.png", "a/2.png", "b/1.png"]

    def test_unknown_columns(self, tmp_path: Path) -> None:
        with pytest.raises(UserError) as caught:
            import_csv(csv(tmp_path, "img,y\na.png,1\n"))
        message = str(caught.value)
        assert message.startswith(f"{tmp_path / 'list.csv'}: unknown columns: img, y. ")
        assert "path,label" in message
        assert "SPAI (image,class,split)" in message

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "is empty"),
            ("filename,label\n", "lists no images"),
            ("filename,label\na\\b.png,0\na/b.png,1\n", r"'a/b\.png' is listed twice"),
            ("filename,label\na.png,0\n ,1\n", "image 2 of the list has no path"),
            ("filename,label\na.png,maybe\n", "the label 'maybe' is unknown"),
            ("image,class,split\na.png,2,test\n", "the label '2' is unknown"),
            ("filename,label\na.png,0\nb,c.png,1\n", "line 3 has 3 fields, the header 2"),
            ("filename,label,label\na.png,0,1\n", "a column is there twice"),
            ('filename,label\n"a.png,0\n', "cannot be read as CSV"),
            ("image,class,split,label\na.png,1,test,real\n", "both 'class' and 'label' give"),
        ],
    )
    def test_what_cannot_be_used(self, tmp_path: Path, text: str, message: str) -> None:
        with pytest.raises(UserError, match=rf"list\.csv: .*{message}"):
            import_csv(csv(tmp_path, text))

    def test_not_utf8(self, tmp_path: Path) -> None:
        file = tmp_path / "list.csv"
        file.write_bytes("filename,label\ncafé.png,0\n".encode("latin-1"))
        with pytest.raises(UserError, match=r"list\.csv: is not UTF-8 text"):
            import_csv(file)

    def test_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"gone\.csv: cannot be read as CSV"):
            import_csv(tmp_path / "gone.csv")


def test_a_folder_that_has_a_manifest_says_so(tmp_path: Path) -> None:
    (tmp_path / "upscaled").mkdir()
    (tmp_path / "upscaled" / "a.png").touch()
    (tmp_path / "manifest.csv").write_text("path,label\n")
    with pytest.raises(UserError, match=r"Perhaps .*manifest.csv is meant"):
        import_folder(tmp_path)
