"""Points and weights that move while training: between steps, in place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from diffhash.jets import Jet, Row
from diffhash.optim import Objective, Term
from diffhash.training.samplers import Sampler
from diffhash.training.steps import Rows
from diffhash.training.weightings import Weighting

_NAMES = ("sampler", "weighting")


class Moving:
    """Applies a sampler and a weighting to the terms of an objective.

    Args:
        objective: the loss whose points and weights change.
        sampler: the sampler that gives new points; None if points stay.
        weighting: the weighting that gives new weights; None if weights stay.
        parameters: a function that returns the trained parameters.
        jet: a function that returns the field's jet at any points.

    Raises:
        ValueError: a named condition does not exist, or its points cannot move.
    """

    def __init__(
        self,
        objective: Objective,
        sampler: Sampler | None,
        weighting: Weighting | None,
        parameters: Callable[[], Sequence[Tensor]],
        jet: Callable[[Tensor, tuple[Row, ...]], Jet],
    ) -> None:
        self._objective, self._sampler, self._weighting = objective, sampler, weighting
        self._parameters, self._jet = parameters, jet
        self._restored: Mapping[str, Any] | None = None
        self.epoch = 0
        self._moved: list[int] = []
        with _naming("sampler", sampler):
            if sampler is not None:
                self._moved = objective.chosen(sampler.conditions)
                for index in self._moved:
                    objective.terms[index].check_moves()
        with _naming("weighting", weighting):
            if weighting is not None:
                weighting.start(objective)

    @property
    def moved(self) -> list[int]:
        """Indices of the terms whose points move."""
        return self._moved

    def prepare(self, replicas: tuple[int, ...], dtype: torch.dtype, epochs_done: int) -> None:
        """Prepare the terms, before the field's plans are made."""
        terms, self.epoch = self._objective.terms, epochs_done
        for index in self._moved:
            terms[index].prepare_to_move()
        if self._weighting is not None and self._weighting.reads_errors:
            for term in self._weighting.terms:
                shape = (*replicas, *term.target.shape)
                term.kept_errors = torch.zeros(shape, dtype=dtype, device=term.x.device)
        if self._restored is not None:
            self._restore(self._restored)

    def begin(self) -> None:
        """Compute the weights of the first step, from the errors of the first parameters."""
        if self._weighting is None or self._restored is not None:
            return
        with torch.no_grad():
            for term in self._weighting.terms if self._weighting.reads_errors else ():
                term.keep_errors(term.errors(self._jet(term.x, term.rows)))
        self._weighting.update(self, None)

    def before_epoch(self, epoch: int, move: Callable[[int, Tensor], None]) -> None:
        """Draw new points, if the sampler does so after ``epoch`` epochs.

        Args:
            epoch: the number of completed epochs.
            move: a function that moves a term, by its index, to new points.
        """
        self.epoch = epoch
        sampler = self._sampler
        if sampler is None or epoch == 0 or epoch % sampler.every:
            return
        for index in self._moved:
            term = self._objective.terms[index]
            move(index, sampler.points(term, lambda x, term=term: self._errors(term, x)))

    def after_step(self, rows: Rows) -> None:
        """Update the weights."""
        if self._weighting is None:
            return
        named_rows = None
        if rows is not None:
            names = [term.name for term in self._objective.terms]
            named_rows = dict(zip(names, rows, strict=True))
        self._weighting.update(self, named_rows)

    def weights(self) -> dict[str, float]:
        """weight · mean(w) of each term whose weights change, by its name."""
        if self._weighting is None:
            return {}
        found = {}
        for term in self._weighting.terms:
            found[term.name] = term.weight.item()
            if term.point_weights is not None:
                found[term.name] *= term.point_weights.mean().item()
        return found

    def gradient(self, terms: Sequence[Term], weighted: bool = False) -> Tensor:
        """See `Present.gradient`."""
        with torch.enable_grad():
            losses = []
            for term in terms:
                mean = term.mean_square(term.errors(self._jet(term.x, term.rows)))
                losses.append(term.weight.to(mean.dtype) * mean if weighted else mean)
            gradients = torch.autograd.grad(
                sum(losses[1:], losses[0]),
                [p for p in self._parameters() if p.requires_grad],
                allow_unused=True,
                materialize_grads=True,
            )
        return torch.cat([gradient.flatten() for gradient in gradients])

    @torch.no_grad()
    def _errors(self, term: Term, x: Tensor) -> Tensor:
        other = term.at(x)
        return other.errors(self._jet(other.x, other.rows))

    def state(self) -> dict[str, Any]:
        """The points, weights and random state, for a checkpoint."""
        terms = self._objective.terms
        weighed = self._weighting.terms if self._weighting is not None else []
        return {
            "kinds": self._kinds(),
            "points": {terms[index].name: terms[index].x.cpu() for index in self._moved},
            "weights": {
                term.name: (
                    term.weight.cpu(),
                    None if term.point_weights is None else term.point_weights.cpu(),
                )
                for term in weighed
            },
            "sampler": None if self._sampler is None else self._sampler.state(),
            "weighting": None if self._weighting is None else self._weighting.state(),
        }

    def load_state(self, state: Mapping[str, Any] | None) -> None:
        """Store the state of a checkpoint until `prepare` restores it.

        Raises:
            ValueError: the checkpoint is of another sampler or weighting.
        """
        kinds = [None, None] if state is None else list(state["kinds"])
        for name, was, now in zip(_NAMES, kinds, self._kinds(), strict=True):
            if was != now:
                raise ValueError(
                    f"{name}: the checkpoint was trained with {was or 'none'}, here it is "
                    f"{now or 'none'}; give the same"
                )
        self._restored = state

    def _kinds(self) -> list[str | None]:
        both = (self._sampler, self._weighting)
        return [None if one is None else type(one).__name__ for one in both]

    def _restore(self, state: Mapping[str, Any]) -> None:
        terms = {term.name: term for term in self._objective.terms}
        for name, x in state["points"].items():
            terms[name].move(x)
        for name, (weight, point_weights) in state["weights"].items():
            terms[name].weight.copy_(weight)
            own = terms[name].point_weights
            if own is not None and point_weights is not None:
                own.copy_(point_weights)
        if self._sampler is not None:
            self._sampler.load_state(state["sampler"])
        if self._weighting is not None:
            self._weighting.load_state(state["weighting"])


@contextmanager
def _naming(setting: str, value: object) -> Iterator[None]:
    """Add the name and value of a setting to the errors of the block."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{setting}={type(value).__name__}: {error}") from error
