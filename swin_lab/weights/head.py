"""Transfer of the classification head to other classes."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from swin_lab.errors import UserError, did_you_mean
from swin_lab.imagenet import ROWS_1K, ROWS_22K, rows_of_1k_in_22k, wordnet_ids, words

POLICIES = ("auto", "keep", "reinit", "map22k", "by_name")


@dataclass(frozen=True)
class HeadPlan:
    """Contains the row of the checkpoint's head for each class."""

    rows: list[int | None] | None
    """Row of every class, None for a new class. If None, the whole head is new, or the model has none."""
    description: str
    """Text for the report."""


def plan_head(
    policy: str,
    rows: int,
    num_classes: int,
    known: Sequence[str] | None,
    wanted: Sequence[str] | None,
) -> HeadPlan:
    """Decides how a head of `rows` rows becomes one of `num_classes`.

    New rows keep the initial values of a new network, N(0, 0.02); the official `load_pretrained` sets a new head to zero.
    Every published fine-tuning keeps or maps its head, so that no published result depends on this.

    Args:
        policy: `keep`: row for row; `reinit`: a new head; `map22k`: the 1k classes of a 22k head; `by_name`: the rows of the
            classes whose names are found, and new rows for the others; `auto`: keep if the classes are the same, else map22k
            for the 1k classes of ImageNet, else by_name if every name is found, else reinit.
        rows: number of rows of the file's head; 0 if it has none.
        num_classes: number of classes of the model; 0 for a model without head.
        known: names of the file's classes, if the file contains them.
        wanted: names of the model's classes, if they are known.

    Raises:
        UserError: the policy is unknown or cannot be followed.
    """
    if policy not in POLICIES:
        raise UserError(f"head={policy} is unknown{did_you_mean(policy, POLICIES)}")
    if num_classes == 0:
        return HeadPlan(None, f"dropped ({rows} rows): the model has none" if rows else "none in the file or the model")
    if rows == 0:
        if policy in ("auto", "reinit"):
            return HeadPlan(None, f"new ({num_classes} classes): the file has none")
        raise UserError(f"head={policy}: the file has no head; use head=reinit")
    known = known or wordnet_ids(rows)
    plans = {
        "auto": lambda: _auto(rows, num_classes, known, wanted),
        "keep": lambda: _keep(rows, num_classes),
        "reinit": lambda: HeadPlan(None, f"new ({num_classes} classes) as asked; {rows} rows of the file are dropped"),
        "map22k": lambda: _map22k(rows, num_classes),
        "by_name": lambda: _by_name(rows, num_classes, known, wanted),
    }
    return plans[policy]()


def _auto(rows: int, num_classes: int, known: Sequence[str] | None, wanted: Sequence[str] | None) -> HeadPlan:
    names_agree = known is None or wanted is None or _same(known, wanted)
    if rows == num_classes and names_agree:
        return _keep(rows, num_classes)
    imagenet = wanted is None or _same(wanted, wordnet_ids(ROWS_1K) or ())
    if rows == ROWS_22K and num_classes == ROWS_1K and imagenet:
        return _map22k(rows, num_classes)
    if known is not None and wanted is not None:
        found = find_rows(known, wanted)
        if all(row is not None for row in found):
            return HeadPlan(found, f"{num_classes} of {num_classes} classes found by name among {rows}")
    reason = "other classes" if rows == num_classes else f"the file has {rows} classes, the model {num_classes}"
    return HeadPlan(None, f"new ({num_classes} classes): {reason}")


def _keep(rows: int, num_classes: int) -> HeadPlan:
    if rows != num_classes:
        raise UserError(
            f"head=keep: the file's head has {rows} rows and the model {num_classes} classes; "
            "use head=reinit, by_name or (22k to 1k) map22k"
        )
    return HeadPlan(list(range(rows)), f"kept ({rows} classes)")


def _map22k(rows: int, num_classes: int) -> HeadPlan:
    if rows != ROWS_22K or num_classes != ROWS_1K:
        raise UserError(
            f"head=map22k takes {ROWS_1K} rows out of {ROWS_22K} in the order of Swin's ImageNet-22k; "
            f"the file has {rows} and the model {num_classes}: use head=reinit or by_name"
        )
    return HeadPlan(list(rows_of_1k_in_22k()), f"{ROWS_22K} -> {ROWS_1K} classes, the published 22k to 1k map")


def _by_name(rows: int, num_classes: int, known: Sequence[str] | None, wanted: Sequence[str] | None) -> HeadPlan:
    if wanted is None:
        raise UserError("head=by_name needs the names of the model's classes; set class_names")
    if known is None:
        raise UserError(f"head=by_name: the file does not name its {rows} classes; use head=keep or reinit")
    if len(wanted) != num_classes:
        raise UserError(f"head=by_name: {len(wanted)} class names are given for {num_classes} classes")
    found = find_rows(known, wanted)
    missing = [name for name, row in zip(wanted, found, strict=True) if row is None]
    if len(missing) == len(wanted):
        shown = ", ".join(map(repr, missing[:5]))
        raise UserError(f"head=by_name: none of the classes ({shown}, ...) is among the {rows} of the file; use head=reinit")
    description = f"{len(wanted) - len(missing)} of {len(wanted)} classes found by name among {rows}"
    return HeadPlan(
        found, description + (f", new: {', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''}" if missing else "")
    )


def fill_head(head: torch.nn.Linear, plan: HeadPlan, weight: Tensor, bias: Tensor | None) -> None:
    """Copies the rows of a plan into a head; classes without a row keep their initial values."""
    assert plan.rows is not None
    targets = [i for i, row in enumerate(plan.rows) if row is not None]
    sources = [row for row in plan.rows if row is not None]
    with torch.no_grad():
        head.weight[targets] = weight[sources].to(head.weight)
        if bias is not None:
            head.bias[targets] = bias[sources].to(head.bias)


def find_rows(known: Sequence[str], wanted: Sequence[str]) -> list[int | None]:
    """Returns for every wanted class the row with its name, or None if no row or more than one has it.

    A name is a WordNet id, all words of a class ("tench, Tinca tinca") or one of them; case, underscores and spaces at the
    ends do not matter. The whole name counts before a single word, and the first word before the others.
    """
    spellings = [_spellings(name) for name in known]
    levels = [_unique((level[i], row) for row, level in enumerate(spellings) if i < len(level)) for i in range(3)]
    anywhere = _unique((word, row) for row, level in enumerate(spellings) for word in set(level[2:]))
    found = []
    for name in wanted:
        query = name if _is_id(name) else _plain(name)
        rows = [table[query] for table in (*levels, anywhere) if table.get(query) is not None]
        found.append(rows[0] if rows else None)
    return found


def _spellings(name: str) -> list[str]:
    """Returns the spellings of a class: the id or the whole name, all words, then each word."""
    all_words = words(name) if _is_id(name) else name
    return [_plain(name), _plain(all_words), *(_plain(word) for word in all_words.split(","))]


def _unique(pairs: Iterable[tuple[str, int]]) -> dict[str, int]:
    listed = list(pairs)
    count = Counter(name for name, _ in listed)
    return {name: row for name, row in listed if count[name] == 1}


def _same(first: Sequence[str], second: Sequence[str]) -> bool:
    """Returns whether two lists name the same classes in the same order, by ids or by words."""
    if len(first) != len(second):
        return False
    return all(a == b or set(_spellings(a)) & set(_spellings(b)) for a, b in zip(first, second, strict=True))


def _plain(name: str) -> str:
    return name.strip().lower().replace("_", " ")


def _is_id(name: str) -> bool:
    return re.fullmatch(r"n\d{8}", name) is not None
