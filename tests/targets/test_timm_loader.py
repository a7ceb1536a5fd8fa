"""What a training script of timm gets of a dump. timm's own tasks are asked in tests/vision."""

import numpy as np
import pytest
import torch

import softlabels
from softlabels.errors import UsageError
from tests import codecs
from tests.conftest import make_vectors, save_script

CONFIG = {"input_size": (1, 8, 8), "mean": (0.2, 0.4, 0.6), "std": (0.5, 0.5, 0.2)}


@pytest.mark.parametrize(
    "words", [{}, {"dtype": torch.bfloat16, "channels_last": True}, {"workers": 1}]
)
def test_a_batch_is_the_view_of_its_epoch_normalised_as_the_student_wants_it(views_folder, words):
    loader = softlabels.TimmLoader(views_folder, CONFIG, 500, shuffle=False, epoch=2, **words)
    rows = softlabels.load(views_folder).view(2)
    dtype = words.get("dtype", torch.float32)
    mean, std = (torch.tensor(255 * v, dtype=dtype) for v in (0.4, 0.4))  # of three channels
    pairs = [(input, target, loader.answer(input)) for input, target in loader]
    assert [len(target) for _, target, _ in pairs] == [500, 500, 200]
    assert len(loader) == 3
    for start, (input, target, answer) in zip((0, 500, 1000), pairs, strict=True):
        batch = rows[start : start + 500]
        pixels = (batch["input"] * 255).round().to(dtype)
        assert torch.equal(input, (pixels - mean) / std)
        assert torch.equal(target, batch["label"])
        assert torch.equal(answer, batch["logits"].float())
        assert input.is_contiguous(memory_format=loader.format)


def test_each_pass_is_the_next_epoch_unless_one_is_chosen(views_folder):
    loader = softlabels.TimmLoader(views_folder, CONFIG, 600, seed=3)
    rows = softlabels.load(views_folder)

    def seen() -> int:
        """The view of a pass over the loader, in which each input comes once."""
        answers = torch.cat([loader.answer(input) for input, _ in loader])
        [view] = {
            view
            for view in (0, 1, 2)
            if torch.equal(answers.sort(0)[0], rows.view(view)["logits"].float().sort(0)[0])
        }
        return view

    assert [seen() for _ in range(4)] == [0, 1, 2, 0]
    loader.sampler.set_epoch(1)
    assert [seen(), loader.epoch, seen()] == [1, 1, 2]
    again = softlabels.TimmLoader(views_folder, CONFIG, 600, seed=3, epoch=2)
    first = [next(iter(one))[1] for one in (loader, again)]
    assert not torch.equal(*first), "another epoch has another order"
    loader.set_epoch(2)
    assert torch.equal(next(iter(loader))[1], first[1])
    every = softlabels.TimmLoader(views_folder, CONFIG, 600, views="all")
    assert len(every) == 6


def test_ranks_share_an_epoch(views_folder, monkeypatch):
    shares = [
        softlabels.TimmLoader(views_folder, CONFIG, 250, rank=rank, world=2) for rank in (0, 1)
    ]
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    shares.append(softlabels.TimmLoader(views_folder, CONFIG, 250))
    labels = [torch.cat([target for _, target in share]) for share in shares]
    assert torch.equal(labels[1], labels[2])
    both = torch.cat(labels[:2]).sort()[0]
    assert torch.equal(both, softlabels.load(views_folder).view(0)["label"].sort()[0])


def test_the_teacher_answers_the_batch_that_was_given_and_no_other(views_folder):
    loader = softlabels.TimmLoader(views_folder, CONFIG, 100)
    passing = iter(loader)
    first, _ = next(passing)
    answer = loader.answer(first)
    for same in (first.detach(), first.clone(), first.contiguous(memory_format=loader.format)):
        assert torch.equal(loader.answer(same), answer)
    second, _ = next(passing)
    assert torch.equal(loader.answer(first), answer), "a script may have read one ahead"
    for other in (second.flip(3), second[:50], second.roll(1, 0)):
        with pytest.raises(UsageError, match="that are no batch as TimmLoader gave it last"):
            loader.answer(other)
    second[:, :, :2] = 0  # as random erasing does
    with pytest.raises(UsageError, match=r"--augment '…'"):
        loader.answer(second)


def test_a_pass_without_gradients_is_answered_too(views_folder):
    loader = softlabels.TimmLoader(views_folder, CONFIG, 400, shuffle=False)
    with torch.inference_mode():
        input, _ = next(iter(loader))
        assert torch.equal(
            loader.answer(input), softlabels.load(views_folder).view(0)[:400]["logits"].float()
        )
        input[:, :, :2] = 0
        with pytest.raises(UsageError, match="that are no batch as TimmLoader gave it last"):
            loader.answer(input)


class Wide(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)[:, :3]


def test_white_is_255_in_a_picture_and_what_scale_says_in_an_array(tmp_path):
    import datasets
    from PIL import Image

    levels = np.random.default_rng(0).integers(0, 256, (6, 8, 8), np.uint8)
    for number, picture in enumerate(levels):
        (tmp_path / "photos" / f"{number % 3}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(tmp_path / "photos" / f"{number % 3}" / f"{number}.png")
    script = save_script(Wide(), tmp_path / "wide.pt")
    from_minus_1 = "grey|scale(127.5)|normalize(1, 1)"
    softlabels.dump(teacher=script, data=str(tmp_path / "photos"), preprocess=from_minus_1,
                    out=str(tmp_path / "of_photos"))  # fmt: skip
    [(input, _)] = softlabels.TimmLoader(tmp_path / "of_photos", CONFIG, 6, shuffle=False)
    shown = torch.from_numpy(levels[[0, 3, 1, 4, 2, 5]][:, None]).float()
    assert torch.equal(input, (shown - 255 * 0.4) / torch.tensor(255 * 0.4))

    features = datasets.Features({"x": datasets.Array3D((1, 8, 8), "uint8"),
                                  "label": datasets.Value("int64")})  # fmt: skip
    rows = {"x": list(levels[:, None]), "label": [0, 1, 2, 0, 1, 2]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "arrays.parquet")
    arrays = tmp_path / "of_arrays"
    softlabels.dump(teacher=script, data=str(tmp_path / "arrays.parquet"), out=str(arrays))
    with pytest.raises(UsageError, match=r"which number is white .* preprocess='scale\(255\)'"):
        softlabels.TimmLoader(arrays, CONFIG, 6)
    with pytest.raises(
        UsageError, match=r"up to 25\d, and scale\(127.5\) says that 127.5 is white"
    ):
        softlabels.TimmLoader(softlabels.load(arrays, preprocess="scale(127.5)"), CONFIG, 6)
    said = softlabels.load(arrays, preprocess="scale(255)")
    [(input, _)] = softlabels.TimmLoader(said, CONFIG, 6, shuffle=False)
    of_arrays = (torch.from_numpy(levels[:, None]).float() - 255 * 0.4) / torch.tensor(255 * 0.4)
    assert torch.equal(input, of_arrays)


def test_what_timm_can_not_train_on_is_refused(views_folder, teacher, dump_folder, tmp_path):
    import datasets

    script = save_script(Wide(), tmp_path / "wide.pt")
    vectors = {"data": make_vectors(tmp_path / "v.parquet"), "teacher": script}
    softlabels.dump(**vectors, out=str(tmp_path / "vectors"))
    pixels = np.random.default_rng(0).integers(0, 16, (20, 1, 8, 8), np.uint8)
    features = datasets.Features({"x": datasets.Array3D((1, 8, 8), "uint8")})
    datasets.Dataset.from_dict({"x": list(pixels)}, features=features).to_parquet(
        tmp_path / "bare.parquet"
    )
    bare = {"data": str(tmp_path / "bare.parquet"), "teacher": script}
    softlabels.dump(**bare, out=str(tmp_path / "bare"))
    assert codecs.CODECS["step"]
    softlabels.dump(teacher=teacher, out=str(tmp_path / "steps"), codec="step:0.05")
    several, pair = softlabels.load([dump_folder]), softlabels.load({"a": dump_folder})
    for given, config, message in (
        (tmp_path / "vectors", CONFIG, r"uint8 \[C, H, W\], and the inputs of .*vectors are othe"),
        (tmp_path / "bare", CONFIG, r"20 of 20 rows of .*bare have none: train with softlabels.kd"),
        (tmp_path / "steps", CONFIG, "compares one softmax and one label a picture, and .*steps"),
        (several, CONFIG, r"TimmLoader takes one dump, and this is Concatenated\(.*digits-t"),
        (pair, CONFIG, r"this is SideBySide\(a=.*mix its teachers, with .mix\('logit'\), or train"),
        (pair.mix("prob"), CONFIG, r"1·a by prob has none: mix by 'logit', or train with softlab"),
        (softlabels.load(views_folder, inputs=False), CONFIG, "was loaded without inputs"),
        (
            views_folder, CONFIG | {"input_size": (3, 224, 224)},
            r"input_size'\] is \[3, 224, 224\], and the pictures of .* are \[1, 8, 8\] as the teac",
        ),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=message):
            softlabels.TimmLoader(given, config, 10)
    with pytest.raises(
        UsageError, match=r"views is 3, and .*digits-views has 2 drawn views of each input"
    ):
        softlabels.TimmLoader(views_folder, CONFIG, 10, views=3)


def test_teachers_mixed_by_their_logits_answer_as_one(views_folder):
    teachers = softlabels.load({"a": views_folder, "b": views_folder})
    loader = softlabels.TimmLoader(teachers.mix("logit"), CONFIG, 400, shuffle=False, epoch=1)
    alone = softlabels.TimmLoader(views_folder, CONFIG, 400, shuffle=False, epoch=1)
    for (input, target), (same, label) in zip(loader, alone, strict=True):
        assert torch.equal(input, same)
        assert torch.equal(target, label)
        assert torch.equal(loader.answer(input), alone.answer(same))
