"""`python -m fleet.compose VARIANT...`: envoy/envoy.yaml with variants applied, on stdout.

A variant is a list of edits, each at a path of keys; an element of a list is found by its `name`.

    - {at: a/b, merge: {...}}                  deep, new values win
    - {at: a/b, set: ...}
    - {at: a/b, insert: [...], before: NAME}   into a list; without `before`, at its end
    - {at: a/b, remove: true}
    - {at: a/b, copy: NEW}                     an element of a list, under a new name, at its end
"""

import copy
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path("envoy")
HTTP = "static_resources/listeners/main/filter_chains/0/filters/0/typed_config"
EXCLUSIVE = ({"orca", "weights", "zones"}, {"canary", "shadow"})  # they edit the same place
SHORT = {"HTTP": HTTP, "HOST": f"{HTTP}/route_config/virtual_hosts/speech"}


class BadEdit(Exception):
    """A variant names a place that is not there, or two of them do not go together."""


def compose(applied: Iterable[str], folder: Path = FOLDER) -> dict[str, Any]:
    """The configuration as plain data. Raises BadEdit; OSError for a variant that is not there."""
    config: dict[str, Any] = _read(folder / "envoy.yaml")
    applied = list(applied)
    for group in EXCLUSIVE:
        if len(both := group.intersection(applied)) > 1:
            raise BadEdit(f"variants that exclude each other: {', '.join(sorted(both))}")
    for variant in applied:
        for edit in _read(folder / "variants" / f"{variant}.yaml"):
            apply(config, edit)
    return config


def _read(file: Path) -> Any:
    """Without what YAML's anchors share: an edit at one of these places would change them all."""
    return json.loads(json.dumps(yaml.safe_load(file.read_text())))


def variants(folder: Path = FOLDER) -> list[str]:
    """What can be applied."""
    return sorted(file.stem for file in (folder / "variants").glob("*.yaml"))


def apply(config: dict[str, Any], edit: Mapping[str, Any]) -> None:
    """Changes `config` in place."""
    first, _, rest = edit["at"].partition("/")
    path = "/".join(filter(None, (SHORT.get(first, first), rest)))
    if "set" in edit:
        parent, _, key = path.rpartition("/")
        find(config, parent)[key] = edit["set"]
    elif "remove" in edit:
        parent, _, key = path.rpartition("/")
        del find(config, parent)[key]
    elif "copy" in edit:
        twin = copy.deepcopy(find(config, path)) | {"name": edit["copy"]}
        find(config, path.rpartition("/")[0]).append(twin)
    elif "merge" in edit:
        merge(find(config, path), edit["merge"])
    else:
        place = find(config, path)
        at = index(place, edit["before"]) if "before" in edit else len(place)
        place[at:at] = edit["insert"]


def find(config: Any, path: str) -> Any:
    """What is at `path`."""
    for step in filter(None, path.split("/")):
        try:
            config = config[index(config, step)] if isinstance(config, list) else config[step]
        except (KeyError, IndexError, TypeError) as error:
            raise BadEdit(f"{path}: there is no {step!r}") from error
    return config


def index(items: list[Any], name: str) -> int:
    """Where the element is that has this name, or this number."""
    for at, item in enumerate(items):
        if isinstance(item, dict) and item.get("name") == name:
            return at
    if not name.isdigit():
        raise BadEdit(f"there is no {name!r}")
    return int(name)


def merge(into: dict[str, Any], new: Mapping[str, Any]) -> None:
    """Dictionaries are merged, everything else is replaced."""
    for key, value in new.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = value


class _NoAliases(yaml.SafeDumper):
    def ignore_aliases(self, _data: Any) -> bool:
        return True


def to_yaml(config: Mapping[str, Any]) -> str:
    """Without anchors, so that it can be edited."""
    return yaml.dump(config, Dumper=_NoAliases, sort_keys=False, width=1000)


if __name__ == "__main__":
    try:
        sys.stdout.write(to_yaml(compose(sys.argv[1:])))
    except (BadEdit, OSError) as error:
        sys.exit(f"fleet.compose: {error}")
