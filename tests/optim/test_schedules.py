from typing import Any

import pytest
import torch
from jsonargparse import ArgumentParser
from timm.scheduler import CosineLRScheduler
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import LRScheduler

from flatten_dense.optim import CosineSchedule, PolySchedule, Schedule, StepSchedule


def optimizer_with(**options: float) -> SGD:
    return SGD([{"params": [nn.Parameter(torch.zeros(1))], **options}], lr=0.1)


def rates(optimizer: SGD, scheduler: LRScheduler, steps: int) -> list[float]:
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return [*seen, optimizer.param_groups[0]["lr"]]


def test_poly_follows_the_formula_and_ends_at_zero() -> None:
    optimizer = optimizer_with()
    seen = rates(optimizer, PolySchedule(power=0.9)(optimizer, 10), 10)
    assert seen == pytest.approx([0.1 * (1 - step / 10) ** 0.9 for step in range(11)])
    assert seen[-1] == 0


def test_poly_ends_at_min_lr_and_stays_there() -> None:
    optimizer = optimizer_with()
    seen = rates(optimizer, PolySchedule(power=2.0, min_lr=0.01)(optimizer, 4), 6)
    assert seen == pytest.approx([0.1, 0.060625, 0.0325, 0.015625, 0.01, 0.01, 0.01])


def test_warm_up_multiplies_the_poly_value() -> None:
    optimizer = optimizer_with()
    seen = rates(optimizer, PolySchedule(power=1.0, warmup_steps=4, warmup_ratio=0.2)(optimizer, 8), 8)
    poly = [0.1 * (1 - step / 8) for step in range(9)]
    factors = [0.2, 0.4, 0.6, 0.8, 1, 1, 1, 1, 1]
    assert seen == pytest.approx([value * factor for value, factor in zip(poly, factors, strict=True)])


def test_lr_scale_of_a_group_is_multiplied_in() -> None:
    plain, scaled = optimizer_with(), optimizer_with(lr_scale=0.25)
    schedule = PolySchedule(warmup_steps=2, min_lr=0.001)
    full, quarter = (rates(optimizer, schedule(optimizer, 6), 6) for optimizer in (plain, scaled))
    assert quarter == pytest.approx([0.25 * rate for rate in full])


def test_groups_keep_their_own_base_rate() -> None:
    parameters = [nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = SGD([{"params": [parameters[0]], "lr": 1.0}, {"params": [parameters[1]], "lr": 0.5}])
    scheduler = PolySchedule(power=1.0, min_lr=0.1)(optimizer, 2)
    optimizer.step()
    scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.55, 0.3])


def test_resuming_from_state_dicts_continues_the_same_curve() -> None:
    schedule = PolySchedule(warmup_steps=3)
    optimizer = optimizer_with(lr_scale=0.5)
    whole = rates(optimizer, schedule(optimizer, 10), 10)

    optimizer = optimizer_with(lr_scale=0.5)
    scheduler = schedule(optimizer, 10)
    rates(optimizer, scheduler, 4)
    saved = optimizer.state_dict(), scheduler.state_dict()
    optimizer = optimizer_with(lr_scale=0.5)
    scheduler = schedule(optimizer, 10)
    optimizer.load_state_dict(saved[0])
    scheduler.load_state_dict(saved[1])
    assert rates(optimizer, scheduler, 6) == whole[4:]


@pytest.mark.parametrize("total_steps", [0, -1, float("inf")])
def test_unknown_length_of_training_is_refused(total_steps: int) -> None:
    with pytest.raises(ValueError, match="max_steps"):
        PolySchedule()(optimizer_with(), total_steps)


def test_base_rate_below_min_lr_is_refused() -> None:
    with pytest.raises(ValueError, match=r"0\.1 lies below min_lr=0\.5"):
        PolySchedule(min_lr=0.5)(optimizer_with(), 10)


@pytest.mark.parametrize(
    ("option", "value"), [("power", 0.0), ("warmup_steps", -1), ("warmup_ratio", 1.5), ("min_lr", -0.1)]
)
def test_options_out_of_range_are_refused_by_name(option: str, value: float) -> None:
    with pytest.raises(ValueError, match=option):
        PolySchedule(**{option: value})


def test_a_recipe_gives_the_schedule_as_plain_values() -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--schedule", type=PolySchedule | None)
    config = parser.parse_object({"schedule": {"power": 1.0, "warmup_steps": 1500}})
    assert parser.instantiate(config).schedule == PolySchedule(power=1.0, warmup_steps=1500)


@pytest.mark.parametrize(("epochs", "after"), [(12, (8, 11)), (36, (27, 33))])
def test_published_drops_come_after_their_epochs(epochs: int, after: tuple[int, int]) -> None:
    schedule = StepSchedule((0.666667, 0.916667) if epochs == 12 else (0.75, 0.916667), warmup_steps=0)
    curve = schedule.curve(1e-4, epochs * 7330)
    for factor, epoch in zip((0.1, 0.01), after, strict=True):
        assert curve(epoch * 7330 - 1) == pytest.approx(10 * factor)
        assert curve(epoch * 7330) == pytest.approx(factor)


def test_step_schedule_warms_up_as_published() -> None:
    optimizer = optimizer_with()
    seen = rates(optimizer, StepSchedule((0.9,), warmup_steps=4, warmup_ratio=0.001)(optimizer, 10), 9)
    assert seen[:5] == pytest.approx([0.0001, 0.025075, 0.05005, 0.075025, 0.1])
    assert seen[8:] == pytest.approx([0.1, 0.01])


def test_the_published_warm_up_lasts_500_steps_from_a_thousandth() -> None:
    optimizer = optimizer_with()
    seen = rates(optimizer, StepSchedule()(optimizer, 87960), 501)
    assert [seen[0], seen[250], seen[499], seen[500]] == pytest.approx([1e-4, 0.05005, 0.0998002, 0.1])


def test_lr_scale_of_a_group_is_multiplied_into_the_steps() -> None:
    plain, scaled = optimizer_with(), optimizer_with(lr_scale=0.25)
    schedule = StepSchedule((0.5,), warmup_steps=2)
    full, quarter = (rates(optimizer, schedule(optimizer, 6), 6) for optimizer in (plain, scaled))
    assert quarter == pytest.approx([0.25 * rate for rate in full])


@pytest.mark.parametrize(("option", "value"), [("drops_at", (0.9, 0.5)), ("drops_at", (8, 11)), ("factor", 0.0)])
def test_options_of_the_step_schedule_out_of_range_are_refused_by_name(option: str, value: object) -> None:
    with pytest.raises(ValueError, match=option):
        StepSchedule(**{option: value})


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"power": 0.9, "warmup_steps": 7}, PolySchedule(0.9, 7)),
        ({"drops_at": [0.5], "warmup_steps": 7}, StepSchedule((0.5,), warmup_steps=7)),
        ({"warmup": 0.1, "min_lr": 0.0}, CosineSchedule(0.1, min_lr=0.0)),
        ({"cooldown": 0.1}, CosineSchedule(cooldown=0.1)),
    ],
)
def test_the_options_of_a_recipe_tell_which_schedule_is_meant(values: dict[str, Any], expected: Schedule) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--schedule", type=Schedule | None)
    assert parser.instantiate(parser.parse_object({"schedule": values})).schedule == expected


def test_one_option_of_a_recipes_schedule_is_replaced() -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_argument("--schedule", type=Schedule | None)
    recipe = '{"schedule": {"drops_at": [0.5], "warmup_steps": 7}}'
    config = parser.parse_args(["--config", recipe, "--schedule.warmup_steps", "5"])
    assert parser.instantiate(config).schedule == StepSchedule((0.5,), warmup_steps=5)


COSINES = [
    # 300 epochs and 10 of cool-down, 5 of warm-up, of 4 steps each
    (1240, {"warmup": 5 / 310, "cooldown": 10 / 310}, 1e-3),
    (1200, {"warmup": 20 / 300, "warmup_lr": 5e-7, "min_lr": 5e-6}, 1e-3),
    (7, {}, 1e-3),
]


@pytest.mark.parametrize(("total", "options", "lr"), COSINES)
def test_cosine_takes_every_step_at_the_rate_of_timms_scheduler(
    total: int, options: dict[str, float], lr: float
) -> None:
    ours, timms = (SGD([nn.Parameter(torch.zeros(1))], lr=lr) for _ in range(2))
    schedule = CosineSchedule(**options)
    scheduler = CosineLRScheduler(
        timms,
        t_initial=round(total * (1 - schedule.cooldown)),
        lr_min=schedule.min_lr,
        warmup_t=round(total * schedule.warmup),
        warmup_lr_init=schedule.warmup_lr,
        cycle_limit=1,
        t_in_epochs=False,
    )
    expected = []
    for step in range(total + 1):
        scheduler.step_update(step)
        expected.append(timms.param_groups[0]["lr"])
    assert rates(ours, schedule(ours, total), total) == pytest.approx(expected, rel=1e-12)


def test_cosine_scales_the_ends_with_the_rate() -> None:
    plain, scaled = optimizer_with(), optimizer_with(lr_scale=0.25)
    schedule = CosineSchedule(warmup=0.2, cooldown=0.1, min_lr=0.01)
    full, quarter = (rates(optimizer, schedule(optimizer, 10), 10) for optimizer in (plain, scaled))
    assert quarter == pytest.approx([0.25 * rate for rate in full])


@pytest.mark.parametrize(
    ("option", "value"), [("warmup", 5.0), ("cooldown", 1.0), ("warmup_lr", -1.0), ("min_lr", -1.0)]
)
def test_options_of_the_cosine_out_of_range_are_refused_by_name(option: str, value: float) -> None:
    with pytest.raises(ValueError, match=option):
        CosineSchedule(**{option: value})


def test_cosine_that_would_rise_is_refused() -> None:
    with pytest.raises(ValueError, match=r"0\.1 lies below min_lr=0\.5"):
        CosineSchedule(min_lr=0.5)(optimizer_with(), 10)
