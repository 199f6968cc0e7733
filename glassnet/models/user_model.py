"""Networks of the user's own: a class, or a function that returns a network, in a file named by its path."""

from __future__ import annotations

import copy
import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from glassnet._errors import UsageError, WorkError, unknown_name
from glassnet._seed import seeded
from glassnet._types import Shape
from glassnet._user_code import Address, UserFile, in_words, loaded_file

MAIN, FOLDER = "model.py", "source"
"""Where a run keeps the user's file, and the folder of the modules it imports from beside itself."""
IMAGE_CHANNELS = (1, 3)
Parameters = Mapping[str, inspect.Parameter]


@dataclass(frozen=True, kw_only=True)
class UserSpec:
    """How `build_user_model` built a model; with the stored sources, what a run needs to build it again."""

    name: str
    """Of the class or function in the file."""
    file: str
    """Name of the file it came from."""
    options: dict[str, Any]
    """What it was called with, by keyword."""
    input_size: tuple[int, int] | None = None
    """Height and width that were asked for; None takes the data's."""
    seed: int = 0
    """That of the initial weights."""
    sources: Mapping[str, bytes] = field(default_factory=dict)
    """The user's files by their place in a run's folder: `model.py`, and neighbours as `source/blocks.py`."""

    def section(self) -> dict[str, object]:
        """Return what a run's config says of the model; the files are told by their digests."""
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in self.sources.items()}
        return {
            "name": None,
            "class": self.name,
            "file": self.file,
            "options": self.options,
            "seed": self.seed,
            "sources": digests,
        }


def build_user_model(
    address: Address,
    *,
    seed: int = 0,
    fitting: Mapping[str, object] | None = None,
    options: Mapping[str, object] | None = None,
    input_size: tuple[int, int] | None = None,
    folder: Path | None = None,
) -> nn.Module:
    """Execute the user's file and build the network that `address` names, with initial weights drawn from `seed`.

    `fitting` (see `fitting_options`) is passed as far as the signature takes it, `options` must be taken by it.
    `folder` holds the modules that the file imports from beside itself; by default its own.

    Raises `UsageError` that names the file, and the line in it where its code failed: a file that does not load, no
    such class, one that is no network, missing or unknown options, a constructor that raises.
    """
    with loaded_file(address.path, folder) as file:
        build = _builder(file, address.name)
        parameters = _parameters(build, address)
        chosen = _chosen_options(parameters, address, fitting or {}, options or {})
        model = _called(build, address, chosen, seed)
        sources = {MAIN: file.content}
        sources |= {f"{FOLDER}/{name}": content for name, content in file.neighbours().items()}
    spec = UserSpec(
        name=address.name,
        file=address.path.name,
        options=chosen,
        input_size=input_size,
        seed=seed,
        sources=sources,
    )
    model.__dict__["_glassnet_user_spec"] = spec  # not through the network's own __setattr__
    return model


def user_spec_of(model: nn.Module) -> UserSpec | None:
    """Return how `build_user_model` built this model; None where it did not."""
    spec = model.__dict__.get("_glassnet_user_spec")
    return spec if isinstance(spec, UserSpec) else None


def fitting_options(num_outputs: int | None, input_shape: Shape | None) -> dict[str, object]:
    """Return what makes a network fit the data, under the names that a user's signature may have for it."""
    options: dict[str, object] = {}
    if num_outputs is not None:
        options["num_classes"] = num_outputs
    if input_shape is not None:
        options["input_shape"] = tuple(input_shape)
        if len(input_shape) > 1:
            options |= {"in_channels": input_shape[0], "channels": input_shape[0]}
    return options


def rebuild_user_model(run: Path, section: Mapping[str, Any]) -> nn.Module:
    """Build the network of a run again from the sources in it, by executing them; its weights are still to be loaded.

    The files must be those that the run was trained with, and no others.

    Raises `WorkError` that names what is missing, changed or foreign, and what the code raises.
    """
    name, seed = section.get("class"), section.get("seed", 0)
    options: object = section.get("options")
    digests: object = section.get("sources")
    if not (
        isinstance(name, str)
        and name.isidentifier()
        and isinstance(seed, int)
        and isinstance(options, dict)
        and isinstance(digests, dict)
        and MAIN in digests
    ):
        raise WorkError(f"{run / 'config.yaml'}: section model does not say how the network was built. Pass model=.")
    _check_sources(run, digests)
    try:
        return build_user_model(Address(run / MAIN, name), seed=seed, options=options, folder=run / FOLDER)
    except UsageError as error:
        raise WorkError(f"The network in {run} could not be built again: {error}") from None


def _check_sources(run: Path, digests: Mapping[object, object]) -> None:
    there = {
        path.relative_to(run).as_posix() for path in (run / FOLDER).rglob("*") if path.is_symlink() or not path.is_dir()
    }
    foreign = sorted(there - {str(name) for name in digests})
    if foreign:
        raise WorkError(f"{run / foreign[0]} is not one of the sources that this run was trained with. Remove it.")
    for name, digest in digests.items():
        place = PurePosixPath(str(name))
        if place.parts != (MAIN,) and (place.parts[:1] != (FOLDER,) or ".." in place.parts):
            raise WorkError(f"{run / 'config.yaml'}: section model: '{name}' is no source of a run.")
        try:
            content = (run / place).read_bytes()
        except OSError as error:
            reason = error.strerror or str(error)
            raise WorkError(f"Could not read {run / place}: {reason}. Copy the whole folder, or pass model=.") from None
        if hashlib.sha256(content).hexdigest() != digest:
            raise WorkError(
                f"{run / place} is not the file that this run was trained with: its content has changed. "
                "Put the original back, or build the network yourself: gn.open_run(path, model=Net())."
            )


def _builder(file: UserFile, name: str) -> Callable[..., Any]:
    """Return the class or function `name` of a file that was executed."""
    found = vars(file.module).get(name)
    if found is None:
        names = _candidates(file.module)
        if not names:
            raise UsageError(f"{file.path} defines neither a network (a class of nn.Module) nor a function.")
        raise unknown_name(f"name in {file.path}", name, names)
    if isinstance(found, type):
        if not issubclass(found, nn.Module):
            raise UsageError(f"{file.path}:{name} must be a class of nn.Module; it is a class of another kind.")
        return found
    if isinstance(found, nn.Module):
        raise UsageError(
            f"{file.path}:{name} must be a class or a function; it is a network that is built already. "
            "Name its class, or a function that returns it, so that its first weights follow the seed."
        )
    if not callable(found):
        raise UsageError(f"{file.path}:{name} must be a class of nn.Module or a function; got {type(found).__name__}.")
    return found  # type: ignore[no-any-return]


def _candidates(module: ModuleType) -> list[str]:
    """Return the names of the networks in a module; where there is none, of its functions."""
    own = {name: value for name, value in vars(module).items() if not _is_torchs(value) and not name.startswith("_")}
    networks = [name for name, value in own.items() if isinstance(value, type) and issubclass(value, nn.Module)]
    return networks or [name for name, value in own.items() if inspect.isfunction(value)]


def _is_torchs(value: object) -> bool:
    return str(getattr(value, "__module__", "")).partition(".")[0] == "torch"


def _parameters(build: Callable[..., Any], address: Address) -> Parameters:
    with in_words(f"The signature of {address} cannot be read"):
        return inspect.signature(build).parameters


def _chosen_options(
    parameters: Parameters, address: Address, fitting: Mapping[str, object], options: Mapping[str, object]
) -> dict[str, Any]:
    """Return what the network is called with; raise `UsageError` for options that it lacks or does not take."""
    kinds = inspect.Parameter
    named = {
        name: one for name, one in parameters.items() if one.kind in (kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY)
    }
    takes_any = any(one.kind is kinds.VAR_KEYWORD for one in parameters.values())
    for name, value in options.items():
        if name not in named and not takes_any:
            if not named:
                raise UsageError(f"{address} takes no options; got '{name}'.")
            raise unknown_name(f"option of {address}", name, named)
        if not _is_plain(value):
            raise UsageError(f"model.{name} must be a number, a word, or a list of such; got {value!r}.")
    chosen: dict[str, Any] = {
        name: value for name, value in fitting.items() if name in named and _is_meant(named[name])
    }
    chosen |= options
    if isinstance(
        shape := chosen.get("input_shape"), list
    ):  # a tuple is what fits the data, and a list what YAML keeps
        chosen["input_shape"] = tuple(shape)
    lacking = [name for name, one in named.items() if one.default is kinds.empty and name not in chosen]
    if lacking:
        remedy = " ".join(f"--set model.{name}=VALUE" for name in lacking)
        raise UsageError(f"{address} needs {', '.join(lacking)}, which nothing else tells. Give {remedy}.")
    bare = [
        name for name, one in parameters.items() if one.kind is kinds.POSITIONAL_ONLY and one.default is kinds.empty
    ]
    if bare:
        raise UsageError(f"{address} takes {bare[0]} by position only, and options are passed by name. Remove the '/'.")
    return chosen


def _is_meant(parameter: inspect.Parameter) -> bool:
    """Tell whether a parameter named `channels` is that of the image: some networks call their own width so."""
    return parameter.name != "channels" or parameter.default in (inspect.Parameter.empty, None, *IMAGE_CHANNELS)


def _is_plain(value: object) -> bool:
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return all(_is_plain(part) for part in value)
    if isinstance(value, Mapping):
        return all(isinstance(name, str) and _is_plain(part) for name, part in value.items())
    return value is None or isinstance(value, bool | int | float | str)


def _called(build: Callable[..., Any], address: Address, options: Mapping[str, Any], seed: int) -> nn.Module:
    if inspect.isabstract(build):
        missing = ", ".join(sorted(getattr(build, "__abstractmethods__", ())))
        raise UsageError(f"{address} is abstract: it lacks {missing}. Name a class that has them.")
    given = ", ".join(f"{name}={value!r}" for name, value in options.items())
    with in_words(f"{address} could not be built with {address.name}({given})"), seeded(seed, "initial weights"):
        model = build(**copy.deepcopy(dict(options)))  # what is stored is what was passed, whatever is done to it
        if isinstance(model, nn.Module):
            parameters = list(model.named_parameters())
    if not isinstance(model, nn.Module):
        raise UsageError(f"{address} must return a network (nn.Module); it returned {type(model).__name__}.")
    lazy = [name for name, parameter in parameters if is_lazy(parameter)]
    if lazy:
        raise UsageError(
            f"The layers of {address} must know their sizes; '{lazy[0]}' gets its own in the first forward pass (a "
            "lazy layer). Write the sizes, or name a function that builds the network, runs it once and returns it."
        )
    return model
