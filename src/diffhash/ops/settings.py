"""Settings of modules: how they are checked, shown, and stored in state dicts."""

from __future__ import annotations

import json
import operator
from abc import abstractmethod
from collections.abc import Iterable
from typing import Any, SupportsIndex

import torch
from torch import Tensor, nn

Seed = SupportsIndex | Iterable[SupportsIndex]


def integer(name: str, value: object, low: int, high: int | None = None) -> int:
    """A size as an int: ``value`` may be an integer of any library, from ``low`` to ``high``.

    Raises:
        ValueError: the value is no integer or a bool, or lies outside these limits.
    """
    number = _index(value)
    if number is None or number < low or (high is not None and number > high):
        allowed = f"of at least {low}" if high is None else f"from {low} to {high}"
        raise ValueError(f"{name}={value!r}: allowed are integers {allowed}")
    return number


def seeds(value: Seed | None) -> int | list[int] | None:
    """A seed as an int, or the seeds of a sequence or array as a list.

    Raises:
        ValueError: the sequence is empty, or a seed is no integer.
    """
    if value is None or (one := _index(value)) is not None:
        return None if value is None else one
    many = [_index(seed) for seed in value] if isinstance(value, Iterable) else []
    if isinstance(value, str) or not many or None in many:
        raise ValueError(f"seed={value!r}: give an integer, or at least one seed of a sequence")
    return [seed for seed in many if seed is not None]


def _index(value: object) -> int | None:
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return None


class ConfiguredModule(nn.Module):
    """A module that prints its settings, and stores them beside its tensors in state dicts.

    With other settings the same tensors define another function, so that `load_state_dict` raises
    `RuntimeError` for a state with other settings. A state without settings is not checked.
    """

    @property
    @abstractmethod
    def n_replicas(self) -> int | None:
        """The number R of replicas, or None without a replica axis."""

    @abstractmethod
    def _settings(self) -> dict[str, Any]:
        """The settings on which the meaning of the module's tensors depends, as JSON values."""

    def extra_repr(self) -> str:
        settings = self._settings() | ({"replicas": self.n_replicas} if self.n_replicas else {})
        return ", ".join(f"{name}={value!r}" for name, value in settings.items())

    def get_extra_state(self) -> Tensor:
        """The settings as the bytes of a JSON text, ``[n]``, or ``[R, n]`` for replicas."""
        state = torch.tensor(list(json.dumps(self._settings()).encode()), dtype=torch.uint8)
        return state if self.n_replicas is None else state.repeat(self.n_replicas, 1)

    def set_extra_state(self, state: Tensor) -> None:
        """Check that ``state`` has these settings.

        Raises:
            RuntimeError: the settings differ; the message names them.
        """
        try:
            first = state if state.ndim == 1 else state[0]  # the first replica
            text = bytes(first.to(torch.uint8).tolist())
            theirs: dict[str, Any] = dict(json.loads(text).items())  # a dict alone has items
        except (AttributeError, IndexError, TypeError, ValueError) as error:
            raise RuntimeError(f"the settings of the state dict are damaged: {error}") from error
        ours = json.loads(json.dumps(self._settings()))
        others = [
            f"{name}={theirs[name]!r}, here {name}={value!r}"
            for name, value in ours.items()
            if name in theirs and theirs[name] != value
        ]
        if others:
            raise RuntimeError(
                f"the state dict is of another {type(self).__name__}: {'; '.join(others)}"
            )

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        # Checked before any tensor is copied. A state without settings is not reported as missing.
        state = state_dict.setdefault(f"{prefix}_extra_state", self.get_extra_state())
        try:
            self.set_extra_state(state)
        except RuntimeError as error:
            error_msgs.append(f"{prefix.rstrip('.') or 'module'}: {error}")
            return
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )


class NoTorchScript:
    """Raises an error with alternatives if TorchScript compiles the module."""

    def __prepare_scriptable__(self) -> None:
        raise NotImplementedError(
            f"TorchScript does not compile {type(self).__name__}: use torch.export.export, or "
            "torch.compile"
        )
