"""When training goes back: on the curves of small models that learn in numpy, sound ones and damaged ones."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from primer.errors import PrimerError
from train.guard import NAME, Guard, Incidents, Verdict, batch_of

DEVIATIONS = 8.0  # the recipe's default


def outcome(loss: float, *, taken: bool = True, scale: float = 1.0) -> Any:
    return SimpleNamespace(loss=loss, norm=1.0 if taken else math.inf, taken=taken, stop=False, scale=scale)


def row(step: int, loss: float) -> dict[str, Any]:
    """A row of training.jsonl, as it comes back from disk."""
    finite = math.isfinite(loss)
    written = {"step": step, "loss": loss if finite else None, "batch": step - 1, "taken": finite}
    return json.loads(json.dumps(written))


class Bigrams:
    """A language model of pairs, trained with Adam on text that such pairs made."""

    def __init__(self, seed: int, rate: float, schedule: str, steps: int, size: int = 48) -> None:
        self.rng = np.random.default_rng(seed)
        self.text = self.rng.dirichlet(np.full(size, 0.05), size)  # what follows each token
        self.weights, self.rate, self.schedule, self.steps = np.zeros((size, size)), rate, schedule, steps
        self.moments = np.zeros((2, size, size))
        self.step = 0

    def batch(self, tokens: int, *, poisoned: bool = False) -> np.ndarray[Any, Any]:
        """Pairs of tokens: (tokens, 2)."""
        size = len(self.text)
        first = self.rng.integers(0, size, tokens)
        if poisoned:
            return np.stack([first, self.rng.integers(0, size, tokens)], axis=1)
        after = self.text.cumsum(1)[first] > self.rng.random((tokens, 1))
        return np.stack([first, after.argmax(1)], axis=1)

    def learn(self, batch: np.ndarray[Any, Any], factor: float = 1.0) -> float:
        """One step; `factor` multiplies its learning rate. Returns the loss before it."""
        self.step += 1
        first, second = batch.T
        scores = self.weights[first] - self.weights[first].max(1, keepdims=True)
        shares = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
        loss = -np.log(shares[np.arange(len(batch)), second] + 1e-30).mean()
        shares[np.arange(len(batch)), second] -= 1
        gradient = np.zeros_like(self.weights)
        np.add.at(gradient, first, shares / len(batch))
        self.moments = np.array([0.9, 0.98])[:, None, None] * self.moments + np.array([0.1, 0.02])[
            :, None, None
        ] * np.stack([gradient, gradient**2])
        mean = self.moments[0] / (1 - 0.9**self.step)
        square = self.moments[1] / (1 - 0.98**self.step)
        share = (1 + math.cos(math.pi * self.step / self.steps)) / 2 if self.schedule == "cosine" else 1.0
        self.weights -= factor * share * self.rate * mean / (np.sqrt(square) + 1e-7)
        return float(loss)


def settings(seed: int) -> tuple[Bigrams, int]:
    rng = random.Random(seed)
    model = Bigrams(seed, rng.choice([0.05, 0.1, 0.3]), rng.choice(["constant", "cosine"]), 300)
    return model, rng.choice([64, 256])


def test_sound_curves_give_no_alarm():
    verdicts = set()
    for seed in range(8):
        model, tokens = settings(seed)
        guard = Guard(DEVIATIONS)
        for step in range(1, 301):
            verdicts.add(guard.judge(step, step - 1, outcome(model.learn(model.batch(tokens)))))
            assert guard.calm
    assert verdicts == {Verdict.FINE}


def test_sources_far_apart_give_no_alarm():
    """Batches of one sequence: what is 3.5 nats harder comes now and then, of two sources also twice in a row."""

    def comes(step: int, share: float) -> bool:
        return math.floor(step * share + 0.5) > math.floor((step - 1) * share + 0.5)

    for share, other in ((0.01, 0.0), (0.03, 0.0), (0.1, 0.09), (0.15, 0.13), (0.4, 0.0)):
        rng, guard = random.Random(1), Guard(DEVIATIONS)
        for step in range(1, 1500):
            hard = comes(step, share) or comes(step, other)
            loss = 2.3 + 6 * math.exp(-step / 30) + 3.5 * hard + rng.gauss(0, 0.1)
            assert guard.judge(step, step, outcome(loss)) is Verdict.FINE, (share, step)


@pytest.mark.parametrize("damage", ["huge update", "poisoned batches"])
def test_damage_is_found_within_a_few_steps(damage: str):
    for seed in range(10):
        model, _ = settings(seed)
        guard, rows = Guard(DEVIATIONS), []
        for step in range(1, 160):
            bad = step in ((150,) if damage == "huge update" else (150, 151, 152))
            batch = model.batch(256, poisoned=bad and damage != "huge update")
            loss = model.learn(batch, 300 if bad and damage == "huge update" else 1)
            rows.append(row(step, loss))
            if guard.judge(step, step - 1, outcome(loss)) is Verdict.ROLL_BACK:
                break
        # The update of step 150 shows in the loss of step 151; bad data shows at once.
        first = 151 if damage == "huge update" else 150
        assert first <= step <= first + 1, seed
        assert guard.last_good == first - 2
        assert guard.offending() == range(first - 2, step)  # batches are counted from 0
        assert not guard.calm
        kind, losses, sentence = guard.account()
        assert (kind, losses) == ("spike", [each["loss"] for each in rows[first - 1 :]])
        assert f"{step}; recent ones were" in sentence


def test_one_batch_of_noise_is_enough_where_losses_are_steady():
    rng, guard = random.Random(2), Guard(DEVIATIONS)
    for step in range(1, 200):
        guard.judge(step, step, outcome(3 + rng.gauss(0, 0.05)))
    assert guard.judge(200, 200, outcome(3.7)) is Verdict.FINE
    assert not guard.calm  # no checkpoint until the next step has been seen
    assert guard.judge(201, 201, outcome(3.0)) is Verdict.FINE
    assert guard.calm
    assert guard.judge(202, 202, outcome(6.0)) is Verdict.ROLL_BACK
    assert guard.offending() == range(201, 203)


def test_flat_curves_and_no_deviations_give_no_alarm():
    guard, never = Guard(DEVIATIONS), Guard(None)
    for step in range(1, 300):
        assert guard.judge(step, step, outcome(1.0 + 0.2 * (step % 50 < 2))) is Verdict.FINE
        assert never.judge(step, step, outcome(1.0 if step < 200 else 50.0)) is Verdict.FINE
        assert never.calm


def test_a_step_that_is_not_finite_is_skipped_and_three_in_a_row_are_too_many():
    guard = Guard(None)
    guard.judge(1, 10, outcome(3.0))
    assert guard.judge(2, 11, outcome(math.nan, taken=False)) is Verdict.SKIPPED
    assert guard.judge(3, 12, outcome(3.0, taken=False)) is Verdict.SKIPPED
    assert not guard.calm
    assert guard.judge(4, 13, outcome(3.0)) is Verdict.FINE
    assert guard.calm
    verdicts = [guard.judge(step, step + 9, outcome(math.nan, taken=False)) for step in (5, 6, 7)]
    assert verdicts == [Verdict.SKIPPED, Verdict.SKIPPED, Verdict.ROLL_BACK]
    assert (guard.offending(), guard.last_good) == (range(13, 17), 3)
    assert guard.account() == (
        "not finite",
        [None, None, None],
        "The loss or its gradient was not finite in steps 5 to 7.",
    )


def test_the_search_for_the_loss_scale_counts_for_nothing():
    guard, scale = Guard(DEVIATIONS), 2.0**16
    for step in range(1, 17):
        scale /= 2
        expected = Verdict.SKIPPED
        assert guard.judge(step, step - 1, outcome(9.0, taken=False, scale=scale)) is expected
        assert not guard.calm  # nothing shows yet that the weights are good
    verdicts = [guard.judge(step, step - 1, outcome(9.0, taken=False, scale=1.0)) for step in (17, 18)]
    assert verdicts == [Verdict.SKIPPED, Verdict.ROLL_BACK]
    assert (guard.offending(), guard.last_good) == (range(18), 0)


def test_a_guard_that_recalls_judges_as_one_that_was_there():
    model, tokens = settings(4)
    losses = [model.learn(model.batch(tokens)) for _ in range(200)]
    losses[150] = math.nan
    losses[190:193] = [9.0, 9.5, 9.7]
    for at in (0, 5, 31, 100, 152, 189, 190):

        def verdicts(guard: Guard, after: int) -> Iterator[tuple[Verdict, bool]]:
            for step in range(after + 1, 193):
                loss = losses[step - 1]
                yield guard.judge(step, step - 1, outcome(loss, taken=math.isfinite(loss))), guard.calm

        there, recalled = Guard(DEVIATIONS), Guard(DEVIATIONS)
        whole = list(verdicts(there, 0))
        recalled.judge(1, 0, outcome(math.nan, taken=False))  # what it saw before is forgotten
        recalled.recall([row(step, losses[step - 1]) for step in range(1, at + 1)])
        assert list(verdicts(recalled, at)) == whole[at:]
        assert whole[-1] == (Verdict.ROLL_BACK, False)
        assert (recalled.offending(), recalled.account()) == (there.offending(), there.account())


def test_batches_that_are_left_out_are_taken_by_no_step():
    rng = random.Random(0)
    for _ in range(200):
        gaps = [range(start := rng.randrange(30), start + rng.randrange(6)) for _ in range(rng.randrange(5))]
        order = [batch for batch in range(100) if not any(batch in gap for gap in gaps)]
        assert [batch_of(step, gaps) for step in range(40)] == order[:40]
    assert batch_of(7, []) == 7


def wrecked(step: int) -> Guard:
    """A guard that wants to go back after a step."""
    guard = Guard(DEVIATIONS)
    guard.recall([row(number, 3.0) for number in range(1, step - 1)])
    guard.judge(step - 1, step - 2, outcome(9.0))
    guard.judge(step, step - 1, outcome(9.0))
    return guard


def test_incidents_outlive_the_process(tmp_path: Path):
    incidents = Incidents(tmp_path)
    assert incidents.left_out() == []
    incidents.record(wrecked(100), 100, 90, range(97, 100))
    (written,) = (json.loads(line) for line in (tmp_path / NAME).read_text().splitlines())
    assert {key: written[key] for key in ("kind", "step", "losses", "returned_to", "left_out")} == {
        "kind": "spike",
        "step": 100,
        "losses": [9.0, 9.0],
        "returned_to": 90,
        "left_out": [97, 99],
    }
    assert written["sentence"].endswith("Back to step 90, past batches 97 to 99.")
    with (tmp_path / NAME).open("a") as file:
        file.write('{"time": "2026-01-01T00:0' + " " * 1000)  # killed while it wrote
    again = Incidents(tmp_path)
    assert again.left_out() == [range(97, 100)]
    again.record(wrecked(200), 200, 190, range(199, 200))
    assert Incidents(tmp_path).left_out() == [range(97, 100), range(199, 200)]
    assert (tmp_path / NAME).read_text().endswith("}\n")
    (tmp_path / NAME).write_text("nonsense\n")
    with pytest.raises(PrimerError, match=r"incidents\.jsonl is damaged"):
        Incidents(tmp_path)


@pytest.mark.parametrize(
    ("returned_to", "times"),
    [(lambda _: 90, 3), (lambda number: 100 * number - 10, 10)],
    ids=["at one place", "in all"],
)
def test_training_ends_where_going_back_does_not_help(returned_to: Callable[[int], int], times: int, tmp_path: Path):
    incidents = Incidents(tmp_path)
    for number in range(1, times + 1):
        incidents.record(wrecked(100 * number), 100 * number, returned_to(number), range(5, 6))
    with pytest.raises(PrimerError, match=f"went back {times + 1} times") as error:
        incidents.record(wrecked(5000), 5000, returned_to(times + 1), range(5, 6))
    assert "train.learning_rate" in error.value.remedy
    assert str(tmp_path / NAME) in error.value.remedy
    assert len(Incidents(tmp_path).all) == times + 1
