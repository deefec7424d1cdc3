"""Parameters are chosen by equal trials on validation classes, and test items have no say in it."""

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from conftest import COLOURS
from sklearn.metrics import average_precision_score
from torch.nn.functional import normalize
from worlds import make_features, make_split

from xshot_bench import InputError
from xshot_bench.benchmarks import tune
from xshot_bench.benchmarks.ablation import parse_variant
from xshot_bench.benchmarks.executors import Placement
from xshot_bench.benchmarks.executors.limits import Limits
from xshot_bench.benchmarks.plan import Material
from xshot_bench.benchmarks.recall import AbsentDataset
from xshot_bench.benchmarks.registry import Registry
from xshot_bench.benchmarks.report.hyperparameters import BEGIN, END, put_into
from xshot_bench.benchmarks.store import Store
from xshot_bench.benchmarks.tuning.policy import TRIALS, Tuner, settings
from xshot_bench.benchmarks.tuning.rehearsals import Rehearsals, fit_all
from xshot_bench.benchmarks.tuning.trials import Trials, games_of
from xshot_bench.datasets import kshot
from xshot_bench.datasets.feature_cache import PLAIN, FeatureSet, write_features
from xshot_bench.datasets.splitting import Split
from xshot_bench.methods.base import MODALITIES
from xshot_bench.methods.prototype import Prototype
from xshot_bench.methods.taskres import TaskRes

CUT = """
import os
import time
from typing import ClassVar
from pathlib import Path
from torch import Tensor
from xshot_bench.methods.base import Declined, EmbeddingMethod, Modality, Task

class Cut(EmbeddingMethod):
    '''Keeps the first features: more is better in a world without noise.'''
    kept: int = 4
    idle: float = 0.0
    search: ClassVar = {"kept": (1, 2, 4, 8, 16), "idle": (0.0, 1.0)}
    ablations: ClassVar = {"two": {"kept": 2}}

    def fit(self, task: Task) -> None:
        with Path(os.environ["FITS"]).open("a") as file:
            file.write(f"{self.kept}\\n")
        if os.environ.get("STOP") == str(self.kept):
            raise KeyboardInterrupt
        if os.environ.get("HANG") == str(self.kept):
            time.sleep(600)
        if os.environ.get("KILL") == str(self.kept):
            os.kill(os.getpid(), 9)
        if os.environ.get("BREAK") == str(self.kept):
            raise ZeroDivisionError("diverged")
        if os.environ.get("DECLINE", "") in (str(task.shots), "all"):
            raise Declined("it is not for me")

    def embed(self, x: Tensor, modality: Modality) -> Tensor:
        return x[:, : self.kept]
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    monkeypatch.setenv("FITS", str(tmp_path / "fits"))
    (tmp_path / "cut.py").write_text(CUT)
    return tmp_path / "cut.py"


@dataclasses.dataclass
class World:
    """Tunes on made-up features in a folder of its own."""

    folder: Path
    plugins: tuple[Path, ...] = ()

    def tuner(self, features: FeatureSet, split: Split | None = None, results: str = "results") -> Tuner:
        folder = self.folder / hashlib.sha256(features.image.tobytes() + features.text.tobytes()).hexdigest()
        write_features(folder, features)
        split = split or make_split(features, shots=5)
        material = Material("made-up", AbsentDataset(), None, split, folder, PLAIN)
        (self.folder / results).mkdir(exist_ok=True)
        return Tuner(Registry(self.plugins), Trials(self.folder / results), "made-up", material)

    def tune(self, name: str, *given, **named):
        tuner = self.tuner(*given, **named)
        variant = parse_variant(tuner.registry, name, {})
        tuner.compute([variant])
        return tuner.tuned(variant)

    @property
    def fits(self) -> list[str]:
        return (self.folder / "fits").read_text().splitlines()


@pytest.fixture
def world(tmp_path, plugin):
    return World(tmp_path, (plugin,))


FEATURES = make_features(classes=16, per_class=12, dim=16, noise=1.5)


def test_the_settings_are_the_default_and_others_of_the_product(world):
    registry = world.tuner(FEATURES).registry
    drawn = [v.build(registry).parameters() for v in settings(parse_variant(registry, "vtclip", {}), registry)]
    assert drawn[0] == parse_variant(registry, "vtclip", {}).build(registry).parameters()
    once = {json.dumps(one) for one in drawn}
    assert len(drawn) == len(once) == TRIALS
    whole = [v.build(registry).parameters() for v in settings(parse_variant(registry, "cut", {}), registry)]
    assert {(one["kept"], one["idle"]) for one in whole} == {(k, i) for k in (1, 2, 4, 8, 16) for i in (0.0, 1.0)}
    fixed = settings(parse_variant(registry, "cut:two", {}), registry)
    assert [v.build(registry).parameters() for v in fixed] == [{"kept": 2, "idle": i} for i in (0.0, 1.0)]


def test_a_default_that_was_chosen_meets_the_same_others_again(world):
    registry = Registry()

    def drawn(default: dict) -> set[str]:
        variant = parse_variant(registry, "scm", {})
        cls = registry.load("method", "scm")
        old = {name: getattr(cls, name) for name in default}
        try:
            for name, value in default.items():
                setattr(cls, name, value)
                cls.__init__.__kwdefaults__[name] = value
            found = settings(variant, registry)
            return {json.dumps(one.build(registry).parameters(), sort_keys=True) for one in found}
        finally:
            for name, value in old.items():
                setattr(cls, name, value)
                cls.__init__.__kwdefaults__[name] = value

    first = drawn({})
    again = [drawn(json.loads(one)) for one in first]
    assert all(len(first & one) >= TRIALS - 1 for one in again)
    (winner,) = list(again[0])[:1]
    assert drawn(json.loads(winner)) == again[0]  # and then nothing is new


def test_the_best_on_rehearsals_is_chosen_by_an_independent_count(world):
    features = make_features(classes=12, per_class=9, noise=1.5)
    tuned = world.tune("prototype", features)
    games = Rehearsals.of(features, make_split(features, shots=5), "made-up")
    criterion = {}
    for weight, centring in {(t.parameters["shot_weight"], t.parameters["centring"]) for t in tuned.trials}:
        means = []
        for shots in (0, 1, 5):
            scores = []
            for task, items in games.at(shots):
                method = Prototype(shot_weight=weight, centring=centring)
                method.fit(task)
                spread = {m: method.logits(task.source[m], m) for m in MODALITIES}
                scale = {m: 1.5 / (z - z.mean(1, keepdim=True)).square().mean().sqrt() for m, z in spread.items()}
                image, text = ((method.logits(items[m], m) * scale[m]).softmax(1) for m in MODALITIES)
                same = (items.label[:, None] == items.label).numpy()
                for scored in ((image @ text.T).numpy(), (text @ image.T).numpy()):
                    scores += [average_precision_score(y, row) for y, row in zip(same, scored, strict=True)]
            means.append(np.mean(scores))
        criterion[weight, centring] = np.mean(means)
    found = {(t.parameters["shot_weight"], t.parameters["centring"]): tuned.score(t) for t in tuned.trials}
    assert found == pytest.approx(criterion, abs=1e-3)
    best = max(criterion, key=criterion.get)
    assert criterion[best] - criterion[Prototype().shot_weight, 1.0] > 2e-3  # else the next line says nothing
    assert tuple(tuned.setting.values()) == best


def test_of_equals_the_default_is_chosen(world):
    tuned = world.tune("cut", make_features(classes=16, per_class=12, noise=0.0))
    assert all(tuned.score(trial) == pytest.approx(1.0) for trial in tuned.trials if trial.parameters["kept"] > 1)
    assert tuned.chosen is tuned.default
    noisy = world.tune("cut", FEATURES, results="noisy")
    best = [trial for trial in noisy.trials if trial.parameters["kept"] == 16]
    assert noisy.chosen is best[0]  # of two that are equal the one tried first


def test_target_items_have_no_say(world):
    """Whatever happens to the items of target classes, test items and shots, every score stays as it was."""
    before = world.tune("prototype", FEATURES, results="before")
    target = np.isin(FEATURES.label, np.arange(0, 16, 2))
    rng = np.random.default_rng(1)
    image, text = FEATURES.image.copy(), FEATURES.text.copy()
    image[target] = rng.standard_normal(image[target].shape)
    text[target] = text[target][::-1]
    changed = dataclasses.replace(FEATURES, image=image, text=text)
    after = world.tune("prototype", changed, results="after")
    assert [trial.scores for trial in after.trials] == [trial.scores for trial in before.trials]
    assert after.setting == before.setting
    image[~target] = rng.standard_normal(image[~target].shape)
    source = world.tune("prototype", dataclasses.replace(FEATURES, image=image), results="source")
    assert [trial.scores for trial in source.trials] != [trial.scores for trial in before.trials]


def test_rehearsals_hold_no_target_item():
    label = {FEATURES.image[i].tobytes(): FEATURES.label[i] for i in range(len(FEATURES.label))}
    games = Rehearsals.of(FEATURES, make_split(FEATURES, shots=5), "made-up")
    raw = {normalize_row(FEATURES.image[i]): int(y) for i, y in enumerate(FEATURES.label)}
    assert len(label) == len(raw) == len(FEATURES.label)
    for shots in games.shots:
        for task, items in games.at(shots):
            for pairs in (task.source, task.support, task.validation, items):
                assert all(raw[tuple(row)] % 2 for row in np.round(pairs.image.numpy(), 4))
            held, learnt = (set(map(tuple, np.round(p.image.numpy(), 4))) for p in (items, task.labelled))
            assert held.isdisjoint(learnt)


def normalize_row(row: np.ndarray) -> tuple:
    import torch

    return tuple(np.round(normalize(torch.from_numpy(row.astype(np.float32)), dim=0).numpy(), 4))


def test_an_interrupted_tuning_goes_on(world, monkeypatch):
    monkeypatch.setenv("STOP", "8")
    with pytest.raises(KeyboardInterrupt):
        world.tune("cut", FEATURES)
    kept = Trials(world.folder / "results").known
    assert 0 < len(kept) < 10
    done = len(world.fits)
    monkeypatch.delenv("STOP")
    tuned = world.tune("cut", FEATURES)
    games = 3 * len(games_of(world.tuner(FEATURES).setup(tuned.variant)).at(0))
    assert len(world.fits) - done == (10 - len(kept)) * games
    assert tuned.default.parameters == {"kept": 4, "idle": 0.0}
    assert world.tune("cut", FEATURES) == tuned
    assert len(world.fits) - done == (10 - len(kept)) * games  # nothing is computed again


def test_a_default_may_change_and_the_code_may_not(world):
    world.tune("cut", FEATURES)
    fits = len(world.fits)
    (world.folder / "again").mkdir()
    other = World(world.folder, (world.folder / "again/cut.py",))
    words = CUT.replace("Keeps the first", "Takes the first").replace("(1, 2,", "(2,")
    other.plugins[0].write_text(words.replace("kept: int = 4", "kept: int = 8"))
    tuned = other.tune("cut", FEATURES)
    assert len(world.fits) == fits
    assert tuned.trials[0].parameters["kept"] == 8
    (world.folder / "new").mkdir()
    new = World(world.folder, (world.folder / "new/cut.py",))
    new.plugins[0].write_text(CUT.replace("x[:, : self.kept]", "x[:, : self.kept] * 2"))
    new.tune("cut", FEATURES)
    assert len(world.fits) == 2 * fits


def test_what_breaks_down_is_not_chosen_and_tried_again(world, monkeypatch):
    monkeypatch.setenv("BREAK", "16")
    assert world.tune("cut", FEATURES).setting["kept"] == 8
    monkeypatch.delenv("BREAK")
    assert world.tune("cut", FEATURES).setting["kept"] == 16
    monkeypatch.setenv("BREAK", "4")
    with pytest.raises(InputError, match="cut cannot be tuned on made-up: ZeroDivisionError: diverged"):
        world.tune("cut", FEATURES, results="other")


def test_trials_in_processes_score_the_same_and_one_that_ends_its_process_is_alone(world, monkeypatch):
    here = world.tuner(FEATURES, results="here")
    variant = parse_variant(here.registry, "cut", {})
    here.compute([variant])
    monkeypatch.setenv("KILL", "16")
    apart = dataclasses.replace(world.tuner(FEATURES), placement=Placement(2))
    told = []
    apart.compute([variant], lambda *said: told.append(said))
    assert told == [("tuning on made-up", done, 10) for done in range(1, 11)]
    found, expected = apart.tuned(variant), here.tuned(variant)
    killed = [trial for trial in found.trials if trial.parameters["kept"] == 16]
    assert len(killed) == 2 and all("its process was killed" in trial.reason for trial in killed)
    for one, other in zip(found.trials, expected.trials, strict=True):
        assert one.parameters == other.parameters and (one in killed or one.scores == other.scores)
    assert (found.setting["kept"], expected.setting["kept"]) == (8, 16)
    assert len(Trials(world.folder / "results").known) == 8  # what broke down may be tried again


@pytest.mark.slow
def test_a_trial_that_hangs_is_ended(world, monkeypatch):
    monkeypatch.setenv("HANG", "16")
    tuner = dataclasses.replace(world.tuner(FEATURES), placement=Placement(1, Limits(seconds=0.25)))
    variant = parse_variant(tuner.registry, "cut", {})
    tuner.compute([variant])
    found = tuner.tuned(variant)
    assert found.setting["kept"] == 8
    reasons = {trial.parameters["kept"]: trial.reason for trial in found.trials}
    assert reasons == {4: "", 1: "", 2: "", 8: "", 16: "took longer than --cell-timeout 0.25 s"}


def test_what_is_declined_does_not_count(world, monkeypatch):
    monkeypatch.setenv("DECLINE", "0")
    tuned = world.tune("cut", FEATURES)
    assert list(tuned.default.scores) == ["1", "5"]
    assert tuned.score(tuned.default) == pytest.approx(np.mean(list(tuned.default.means.values())))
    assert "it is not for me" in tuned.default.reason
    monkeypatch.setenv("DECLINE", "all")
    with pytest.raises(InputError, match="cut cannot be tuned on made-up: declined X = 5: it is not for me"):
        world.tune("cut", FEATURES, results="other")


def test_a_search_without_the_default_is_refused(world):
    world.plugins[0].write_text(CUT.replace("(1, 2, 4,", "(1, 2,"))
    with pytest.raises(InputError, match="'cut' declares search = {'kept': ...} but has kept=4, which is not in it"):
        world.tune("cut", FEATURES)


def test_without_source_classes_validation_items_are_what_is_played_with(world):
    parts = {f"i{n}": ("test" if n % 12 < 4 else "val" if n % 12 < 7 else "train") for n in range(16 * 12)}
    labels = {item: FEATURES.classes[y] for item, y in zip(FEATURES.ids, FEATURES.label, strict=True)}
    split = kshot.make_split("made-up", "", labels, FEATURES.classes, parts)
    assert Rehearsals.of(FEATURES, split, "made-up").shots == (1, 4, 5)  # 16 shots are more than there are
    before = world.tune("cut", FEATURES, split, results="before")
    tested = np.array([parts[item] == "test" for item in FEATURES.ids])
    image = np.where(tested[:, None], np.float16(0.1), FEATURES.image)
    after = world.tune("cut", dataclasses.replace(FEATURES, image=image), split, results="after")
    assert [trial.scores for trial in after.trials] == [trial.scores for trial in before.trials]
    without = kshot.make_split("made-up", "", labels, FEATURES.classes)
    with pytest.raises(InputError, match="nothing to tune on in split made-up: it has neither source classes nor"):
        world.tune("cut", FEATURES, without)


def test_stacked_fits_come_in_order_and_agree():
    games = Rehearsals.of(FEATURES, make_split(FEATURES, shots=5), "made-up").at(1)
    tasks = [task for task, _ in games]
    odd = dataclasses.replace(tasks[1], source=tasks[1].source.rows(tasks[1].source.label != tasks[1].source.label[0]))
    tasks[1] = odd  # of another shape
    fitted = fit_all(TaskRes(), tasks)
    for method, task, (_, items) in zip(fitted, tasks, games, strict=True):
        alone = TaskRes()
        alone.fit(task)
        assert np.allclose(method.logits(items.image, "image"), alone.logits(items.image, "image"), atol=1e-3)


def test_a_damaged_file_of_trials_is_told(world):
    (world.folder / "results").mkdir()
    (world.folder / "results/tuning.json").write_text("{")
    with pytest.raises(InputError, match="tuning.json cannot be read"):
        world.tune("cut", FEATURES)


def test_the_command_line_tunes_and_runs_with_what_it_found(bench, plugin, tmp_path):
    ask = ("--plugin", str(plugin), "--methods", "cut,prototype,clip", "--shots", "1", "--draws", "2", "--tune")
    called = bench(*ask, "--set", "cut.kept=2", "--format", "json", "--mlflow-uri", f"sqlite:///{tmp_path / 'ml.db'}")
    assert called.code == 0, called.err
    rows = {row["method"] for row in called.table["rows"] if row["method"] != "chance"}
    assert {"cut:tuned", "prototype:tuned", "clip"} <= rows
    assert "prototype on manifest by colours: shot_weight=" in called.err
    chosen = {}
    for trial in Trials(tmp_path / "results").known.values():
        score = np.mean(list(trial.means.values()))
        if trial.method == "prototype" and score > chosen.get("score", 0):
            chosen = {"score": score, **trial.parameters}
    records = [r for r in Store(tmp_path / "results").records() if r.cell.method == "prototype:tuned"]
    assert len(records) == 2
    assert all(r.cell.parameters["shot_weight"] == chosen["shot_weight"] for r in records)

    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'ml.db'}")
    experiment = client.get_experiment_by_name("xshot-bench").experiment_id
    (parent,) = client.search_runs([experiment], filter_string="tags.kind = 'invocation'")
    assert f"shot_weight={chosen['shot_weight']}" in parent.data.params["tuned/manifest/prototype:tuned"]

    fits = (tmp_path / "fits").read_text()
    again = bench(*ask, "--set", "cut.kept=2", "--format", "github")
    assert again.code == 0
    assert "tuned on manifest without its test items: cut:tuned idle=0.0; prototype:tuned shot_weight=" in again.out
    assert (tmp_path / "fits").read_text() == fits
    made = bench(*ask, "--set", "cut.kept=2", command="report")
    assert made.code == 0, made.err


def test_wrong_calls_are_told(bench, plugin):
    def told(*arguments: str, command: str = "") -> str:
        called = bench(*arguments, "--draws", "2", command=command)
        assert called.code == 2, called.out
        return called.err

    assert "none of the methods clip, random declares a search" in told("--methods", "clip,random", "--tune")
    assert "--tune goes with --methods" in told("--methods", "prototype", "--ablate", "prototype", "--tune")
    kshots = ("--protocol", "kshot", "--shots", "1")
    assert "nothing to tune on in split manifest" in told("--methods", "prototype", *kshots, "--tune")
    assert "is not tuned yet on manifest" in told("--methods", "prototype", "--shots", "1", "--tune", command="report")


def test_a_dry_run_says_that_tuning_comes_first(bench):
    called = bench("--methods", "prototype", "--shots", "1", "--draws", "2", "--tune", "--dry-run")
    assert called.code == 0
    assert "First each method is tuned on each dataset, 12 trials at most" in called.out


def test_the_page_gets_its_table_and_keeps_its_words(world, tmp_path):
    first = world.tune("cut", FEATURES)
    page = tmp_path / "page.md"
    page.write_text(f"Words.\n\n{BEGIN}\nold\n{END}\n\nMore words.\n")
    put_into(page, [first])
    head, row = (line.split("|") for line in page.read_text().splitlines() if "method" in line or "`cut`" in line)
    cells = {key.strip(): value.strip() for key, value in zip(head, row, strict=True)}
    assert cells["searched"] == "kept 1, 2, 4, 8, 16; idle 0, 1"
    assert cells["chosen"] == f"kept 16\\* (was 4), idle {first.setting['idle']:g}" + " (was 0)" * (
        first.setting["idle"] > 0
    )
    was, now = first.default.means["5"], first.chosen.means["5"]
    assert (cells["trials"], cells["X = 5"]) == ("10", f"{100 * was:.1f} → {100 * now:.1f}")
    text = page.read_text()
    assert text.startswith("Words.\n\n")
    assert text.endswith("\n\nMore words.\n")
    assert "old" not in text
    put_into(page, [first])
    assert page.read_text() == text
    page.write_text("no marks")
    with pytest.raises(InputError, match="has no place for the table"):
        put_into(page, [first])


def test_what_was_the_default_before_is_remembered(world):
    first = world.tune("cut", FEATURES)
    (world.folder / "again").mkdir()
    other = World(world.folder, (world.folder / "again/cut.py",))
    other.plugins[0].write_text(CUT.replace("kept: int = 4", "kept: int = 16"))
    again = other.tune("cut", FEATURES)
    assert (again.before.parameters, again.default.parameters["kept"]) == (first.default.parameters, 16)
    assert first.before == first.default


def test_tune_from_the_command_line(world, colour_folder, capsys, tmp_path):
    data = ["--datasets", "manifest", "--root", str(colour_folder), "--encoder", "colours", "--plugin", str(COLOURS)]
    data += ["--plugin", str(world.plugins[0]), "--cache", str(tmp_path / "cache"), "--results", str(tmp_path / "kept")]

    def called(*arguments: str) -> list[str]:
        tune.main([*arguments, *data], standalone_mode=False)
        return [line for line in capsys.readouterr().out.splitlines() if line.startswith("cut")]

    lines = called("cut")
    assert len(lines) == 10
    scores = [float(line.split(": ")[1].split(" ")[0]) for line in lines]
    assert scores == sorted(scores, reverse=True)
    assert "chosen" in lines[0]
    fits = len(world.fits)
    assert called("cut") == lines
    assert len(world.fits) == fits
    plain, one = called("--compare", "cut", "cut{kept=1}")
    assert plain.startswith("cut [cosine]")
    assert plain.count("(+0.000 0.000)") == 3
    assert one.startswith("cut{kept=1} [cosine]")
    assert float(one.split("(")[1].split(" ")[0]) < 0
    for arguments, message in (("cut", "--write", __file__), "--write goes with --all"), ((), "no methods were given"):
        with pytest.raises(InputError, match=message):
            called(*arguments)
