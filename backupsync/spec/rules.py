"""Rules over several fields, judged even where other fields are wrong: so that no second run finds more.

Pydantic runs a model's validators only once every field of it is valid. Here a model with some invalid fields
is built without them; a rule that looks at one of those cannot be judged and is left out, every other one is.
"""

import json
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

Location = tuple[int | str, ...]


def broken_rules(
    model: type[BaseModel], document: dict[str, Any], at: Location = ()
) -> Iterator[tuple[Location, str]]:
    """Yield (location, message) of every broken rule in a document that does not validate as a whole."""
    values: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        key = field.alias if field.alias in document else name
        if key not in document:
            if not field.is_required():
                values[name] = field.get_default(call_default_factory=True)
            continue
        try:
            values[name] = _adapter(field).validate_json(json.dumps(document[key]), strict=True)
        except ValidationError:
            nested = field.annotation
            if isinstance(nested, type) and issubclass(nested, BaseModel) and isinstance(document[key], dict):
                yield from broken_rules(nested, document[key], (*at, key))
    yield from ((at, message) for message in _judge(model, values))


def _judge(model: type[BaseModel], values: dict[str, Any]) -> Iterator[str]:
    partial = model.model_construct(**values)
    for name in model.model_fields.keys() - values.keys():
        partial.__dict__.pop(name, None)  # a default in place of what is wrong would be judged instead
    for rule in model.__pydantic_decorators__.model_validators.values():
        if rule.info.mode != "after":
            continue
        try:
            rule.func(partial)
        except AttributeError:
            continue  # it looks at a field that is wrong itself
        except ValueError as error:
            yield str(error)


def _adapter(field: FieldInfo) -> TypeAdapter[Any]:
    kind: Any = field.annotation
    return TypeAdapter(Annotated[(kind, *field.metadata)] if field.metadata else kind)
