"""Students of several teachers: mixtures of dumps, weights given and fitted, what is refused."""

import shutil

import pytest
import torch

import softlabels
from softlabels.errors import AlignmentError, SoftlabelsError, UsageError
from softlabels.targets.holdout import choose_rows
from softlabels.targets.weighting import fit_weights
from tests.conftest import Lines

QUICK = {"student": "linear", "T": 4, "epochs": 2, "batch_size": 128, "lr": 1e-2}


@pytest.fixture(scope="module")
def place(made, tmp_path_factory):
    """both/: the dumps vit and cnn of two teachers of digits, cnn the worse one and with its rows
    in other shards, and begun, which is not complete."""
    folder = tmp_path_factory.mktemp("several")
    softlabels.fit(data="digits", model="linear", epochs=2, out=str(folder / "c.pt"))
    shutil.copytree(made / "digits-t", folder / "both" / "vit")
    softlabels.dump(teacher=str(folder / "c.pt"), shard_rows=400, out=str(folder / "both" / "cnn"))
    shutil.copytree(folder / "both" / "cnn", folder / "both" / "begun")
    (folder / "both" / "begun" / "softlabels.json").unlink()
    return folder


def both(place) -> list[str]:
    return [str(place / "both" / name) for name in ("vit", "cnn")]


def train(dump, out, **options):
    heard = Lines()
    words = QUICK | {"dump": dump, "out": str(out)} | options
    return softlabels.train(progress=heard, **words), str(heard)


def weights(path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


@pytest.mark.parametrize("space", ["prob", "logit"])
def test_a_student_learns_from_the_mixture(place, tmp_path, space):
    """Its score on held-out rows is its KL with the mixture, computed here anew."""
    shares = {"prob": "0.7,0.3", "logit": "cnn=0.3,vit=0.7"}[space]
    result, said = train(both(place), tmp_path / "s.pt", mix=space, weights=shares)
    assert f"from 0.7·vit + 0.3·cnn by {space} of " in said
    data = result.checkpoint.data
    assert data["mix"] == space
    assert [(name, one["weight"]) for name, one in data["teachers"].items()] == [
        ("vit", 0.7), ("cnn", 0.3)
    ]  # fmt: skip
    found = softlabels.evaluate(
        checkpoint=str(tmp_path / "s.pt"), holdout=True, against=both(place)[::-1], mix=space,
        mix_weights={"vit": 7, "cnn": 3},
    )  # fmt: skip
    held = result.metrics["held_out"]
    for name in ("kl", "agreement"):
        assert found["against"][name] == pytest.approx(held[name], rel=1e-5)
    model = torch.nn.Linear(64, 10)
    weight, bias = weights(tmp_path / "s.pt").values()
    model.load_state_dict({"weight": weight, "bias": bias})
    dataset = softlabels.load({path[-3:]: path for path in both(place)}).mix(space, [0.7, 0.3])
    batch = dataset.take(dataset.rows_of(held_ids(dataset)))
    targets = batch["targets"].temper(1).probs()
    log_p = model(batch["input"].flatten(1)).log_softmax(-1)
    kl = (torch.xlogy(targets, targets) - targets * log_p).sum(-1).mean()
    assert held["kl"] == pytest.approx(kl.item(), rel=1e-4)
    assert list(found["against"]["teachers"]) == ["cnn", "vit"]
    alone = softlabels.evaluate(checkpoint=str(tmp_path / "s.pt"), holdout=True,
                                against=both(place)[0])["against"]  # fmt: skip
    assert found["against"]["teachers"]["vit"]["kl"] == pytest.approx(alone["kl"])


def held_ids(dataset):
    _, held = choose_rows(len(dataset), None, holdout=0.1, rows=None, data_seed=0)
    return dataset.ids[held]


@pytest.mark.parametrize(
    ("views", "options"),
    [
        (False, {"alpha": 0.5}),
        (False, {"shards": "1-2", "shuffle": "blocks(64, 4)", "alpha": 1}),
        (False, {"augment": "random_crop(8, 1)", "rows": 300}),
        (False, {"streaming": True}),
        (True, {"views": "all", "epochs": 1}),
        (True, {"views": 1, "preprocess": "upright|scale(200)"}),
    ],
)
def test_one_dump_twice_is_that_dump(place, views_folder, tmp_path, views, options):
    """A mixture of one teacher with itself trains what the dump alone does, whatever is asked."""
    folder = str(views_folder) if views else both(place)[0]
    mixing = {"mix": "logit", "mix_weights": [0.25, 0.75]}
    two, _ = train({"a": folder, "b": folder}, tmp_path / "two.pt", **mixing, **options)
    one, _ = train(folder, tmp_path / "one.pt", **options)
    for name, weight in one.checkpoint.state_dict.items():
        torch.testing.assert_close(two.checkpoint.state_dict[name], weight, atol=1e-5, rtol=1e-4)
    for name, value in one.metrics["held_out"].items():
        assert two.metrics["held_out"][name] == pytest.approx(value, rel=1e-3, abs=1e-6), name


def test_weights_are_fitted_on_the_rows_that_are_held_out(place, tmp_path):
    result, said = train(str(place / "both"), tmp_path / "s.pt", mix="prob", mix_weights="fit",
                         holdout=0.3, data_seed=5)  # fmt: skip
    assert "begun in " in said, "what is not complete is said"
    assert "weights fitted on 360 held-out rows: " in said
    loaded = softlabels.load({path[-3:]: path for path in both(place)[::-1]}, inputs=False)
    fitted = loaded.fit_weights("prob", holdout=0.3, data_seed=5).weights
    found = {n: one["weight"] for n, one in result.checkpoint.data["teachers"].items()}
    assert found == pytest.approx(fitted, abs=1e-4)
    for refused, words in (
        ({"holdout": 0}, "--mix-weights fit .* and --holdout is 0"),
        ({"holdout": 0.005}, "weights are fitted on held-out rows with labels"),
    ):
        with pytest.raises(UsageError, match=words):
            train(both(place), tmp_path / "n.pt", mix="prob", mix_weights="fit", **refused)


def test_weights_are_fitted_on_the_rows_that_a_checkpoint_held_out(place, tmp_path):
    """Those of its shards, of its split, whatever it is measured on; else it is refused."""
    train(both(place)[0], tmp_path / "s.pt", shards="1-2", holdout=0.3, data_seed=5, epochs=1)
    teachers = softlabels.load({path[-3:]: path for path in both(place)[::-1]}, inputs=False)
    _, drawn = choose_rows(700, None, holdout=0.3, rows=None, data_seed=5)
    of_all = choose_rows(1200, None, holdout=0.1, rows=None, data_seed=0)[1]
    for checkpoint, rows in (("s.pt", teachers.rows_of(teachers.ids[500 + drawn])),
                             (place / "c.pt", of_all)):  # fmt: skip
        heard = Lines()
        words = {"checkpoint": str(tmp_path / checkpoint), "labels": False, "mix": "prob"}
        found = softlabels.evaluate(
            **words, against=both(place)[::-1], mix_weights="fit", progress=heard
        )["against"]["teachers"]
        fitted = fit_weights(teachers, "prob", rows)
        assert f"weights fitted on {fitted.rows} held-out rows: " in str(heard)
        for name, weight in fitted.weights.items():
            assert found[name]["weight"] == pytest.approx(weight, abs=1e-4)
    other = str(tmp_path / "test")
    softlabels.dump(teacher=str(place / "c.pt"), split="test", out=other)
    for checkpoint, words in (
        ("s.pt", r"^--mix-weights fit: .*test is not the dump that .*s\.pt learned from"),
        (
            place / "c.pt",
            r"^--mix-weights fit --against .*test: that is no dump of 'digits', split",
        ),
    ):
        with pytest.raises(AlignmentError, match=words):
            softlabels.evaluate(checkpoint=str(tmp_path / checkpoint), mix="prob",
                                against={"a": other, "b": other}, mix_weights="fit")  # fmt: skip


def test_a_training_goes_on_with_the_same_mixture_alone(place, tmp_path):
    """Wherever the dumps lie; other weights, another space or other dumps are other targets."""
    words = {"mix": "prob", "mix_weights": [0.7, 0.3]}
    first, _ = train(both(place), tmp_path / "s.pt", **words)
    moved = tmp_path / "moved"
    shutil.copytree(place / "both", moved / "here")
    there = [str(moved / "here" / name) for name in ("vit", "cnn")]
    for shares in ([0.7, 0.3], [21, 9], "7,3", "cnn=3,vit=7", {"cnn": 0.3, "vit": 0.7}):
        same = words | {"mix_weights": shares}
        again, said = train(there, tmp_path / "s.pt", resume=True, **same)
        assert "is complete; nothing is left to do" in said
        assert again.metrics == first.metrics
    mixture = "another mixture, of other dumps or by other --mix-weights"
    rows = "another first dump, whose rows these are"
    for change, text in (
        ({"mix_weights": [0.6, 0.4]}, mixture),
        ({"mix": "logit"}, '--mix is "logit" and was "prob"'),
        ({"dump": there[::-1], "mix_weights": [0.3, 0.7]}, rows),
        ({"dump": there[::-1]}, f"{rows}; {mixture}"),
        ({"dump": there[0], "mix": None, "mix_weights": None}, "--mix is null and was .*"),
    ):
        with pytest.raises(UsageError, match=f"s.pt is complete, and was made otherwise: {text}. "):
            train(**({"dump": there, "out": tmp_path / "s.pt", "resume": True} | words | change))


@pytest.mark.parametrize(
    ("names", "options", "words"),
    [
        (["vit", "cnn"], {}, r"dump names 2 dumps, .*vit, .*cnn; say how .* --mix prob"),
        (["vit"], {"mix": "prob"}, r"--mix is 'prob', and there is one dump, .*vit; name two"),
        ([], {"mix": "prob"}, "--mix is 'prob', and no dump is named; name two or more"),
        (["vit"], {"mix_weights": "0.7,0.3"}, "--mix-weights is '0.7,0.3', and nothing is mixed"),
        ([""], {}, r"both.* is no dump and holds 2 dumps, cnn, vit: name one, or .* --mix prob"),
        (["vit", "cnn"], {"mix": "prob", "weights": "0.7,0.3", "mix_weights": "1,2"},
         "--weights is '0.7,0.3' and --mix-weights '1,2', both weights of dumps; give one"),
        (["vit", "cnn"], {"mix": "prob", "weights": "0.7,0.2,0.1"}, "3 weights; there are 2 te"),
        (["vit", "cnn"], {"mix": "prob", "mix_weights": [1, 2, 3]}, "3 weights; there are 2 teach"),
        (["vit", "cnn"], {"mix": "prob", "mix_weights": [1, -1]}, "weights are finite numbers of"),
        (["vit", "cnn"], {"mix": "prob", "mix_weights": "vit=1,2"},
         r"--mix-weights is 'vit=1,2', which has '2'; write each teacher's name once with its"),
        (["vit", "cnn"], {"mix": "prob", "mix_weights": "vit=1,=2"}, "which has '=2'; write each"),
        (["vit", "cnn"], {"mix": "prob", "mix_weights": "vit=1,vit=2"}, "which has 'vit' twice"),
        (["vit", "cnn"], {"mix": "prob", "mix_weights": "vit=1,CNN=2"}, "'CNN' is none of 2 teach"),
        (["vit", "cnn"], {"mix": "prob", "shards": "0-1"},
         r"By --shards 0-1 they have other rows, .*vit has 500 inputs and one of .*cnn 400: leave"),
        (["cnn", "vit"], {"mix": "prob", "shards": "0-1"}, "By --shards 0-1 .* 400 .* 500: leave"),
        ([".."], {"mix": "prob"}, r"both/\.\. has no dump in it; make one"),
        (["vit", "cnn"], {"mix": "mean"}, "--mix is 'mean'; use prob or logit"),
    ],
)  # fmt: skip
def test_what_can_not_be_mixed_is_refused(place, tmp_path, names, options, words):
    dumps = [str(place / "both" / name) for name in names]
    with pytest.raises(SoftlabelsError, match=words):
        train(dumps, tmp_path / "s.pt", **options)
    assert not (tmp_path / "s.pt").exists()


@pytest.mark.slow
def test_the_command_line_and_yaml_name_several(place, tmp_path, cli):
    (tmp_path / "t.yaml").write_text(
        f"dump: [{', '.join(both(place))}]\nmix: logit\nmix_weights: [3, 1]\nepochs: 1\n"
        "student: linear\n"
    )
    done = cli("train", "--config", "t.yaml")
    assert "from 0.75·vit + 0.25·cnn by logit" in done.err


def test_measures_of_a_mixture_are_lines(place, tmp_path):
    train(both(place), tmp_path / "s.pt", mix="prob")
    words = {"checkpoint": str(tmp_path / "s.pt"), "labels": False}
    found = softlabels.evaluate(**words, against=place / "both", mix="prob")
    assert found.lines[0].startswith("against 0.5·cnn + 0.5·vit by prob of ")
    assert [line.split(":")[0] for line in found.lines[1:]] == [
        "  cnn, weight 0.5", "  vit, weight 0.5"
    ]  # fmt: skip
    assert "against vit, kl" in found._repr_html_()
    heard = Lines()
    fitted = softlabels.evaluate(**words, against=both(place), mix="logit", mix_weights="fit",
                                 progress=heard)["against"]  # fmt: skip
    assert "weights fitted on 120 held-out rows" in str(heard)
    assert sum(one["weight"] for one in fitted["teachers"].values()) == pytest.approx(1)
    with pytest.raises(UsageError, match="--against names 2 dumps"):
        softlabels.evaluate(**words, against=both(place))
    with pytest.raises(UsageError, match="--mix is 'prob', and --against names no dump"):
        softlabels.evaluate(checkpoint=words["checkpoint"], mix="prob")
    mixed = softlabels.load({path[-3:]: path for path in both(place)}, inputs=False).mix("prob")
    with pytest.raises(
        UsageError, match=r"0\.5·cnn by prob.* no model; softlabels\.info\(dataset\)"
    ):
        softlabels.evaluate(checkpoint=mixed)


def test_held_out_rows_need_one_of_the_dumps_that_were_learned_from(place, tmp_path):
    train(both(place), tmp_path / "s.pt", mix="prob")
    with pytest.raises(AlignmentError, match=r"is not the dump that .* learned from"):
        softlabels.evaluate(checkpoint=str(tmp_path / "s.pt"), holdout=True,
                            against=both(place)[1])  # fmt: skip
