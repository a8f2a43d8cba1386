"""Generated messages as objects of protobuf's own runtime, and the other way round.

protobuf's runtime (upb) reads and writes the bytes in C; what the rest of this program works with are betterproto2's
classes, which are typed. Between the two every field is copied, which costs some microseconds a message: a tenth of
what the generated classes' own encoder takes, and less than a reader in Python.
"""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import betterproto2
from attrs import define, frozen
from betterproto2 import FieldMetadata
from google.protobuf.message import Message

from proglog_trio.rpc.messages.descriptors import message_class
from proglog_trio.steps import Steps

Generated = TypeVar("Generated", bound=betterproto2.Message)

MESSAGES_AT_ONCE = 128
"""Of a list, in one step: some tenths of a millisecond."""


class TooManyListed(ValueError):
    """A message with more messages in lists than a reader will make objects of."""


@define(eq=False)
class ListBudget:
    """How many messages may be in the lists of one message, those inside of its fields included.

    Attributes:
        left: how many of them are not used yet.
    """

    left: int

    def spend(self, count: int) -> None:
        """Use some; raises TooManyListed if there are not so many left."""
        self.left -= count
        if self.left < 0:
            raise TooManyListed


@frozen(eq=False)
class Converter(typing.Generic[Generated]):
    """How the messages of one generated class are converted.

    A place is one in the order of the fields, in which the generated class's constructor has them.

    Attributes:
        generated: the class.
        runtime: the class that protobuf's runtime has for the same message.
        names: of all fields, in their order.
        changed: fields whose values have another type in the generated class: the place, and what makes it.
        optional: fields of a oneof, which are None where they are not set; in the runtime they have a default then.
        messages: fields of one message: place, name and converter.
        lists: fields of many messages: the same.
        byte_strings: fields of one byte string: their names.
        has_lists: whether it or a message inside of it has lists of messages: only such are converted in steps.
    """

    generated: type[Generated]
    runtime: type[Message]
    names: Sequence[str]
    changed: Sequence[tuple[int, Callable[[Any], Any]]]
    optional: Sequence[tuple[int, str]]
    messages: Sequence[tuple[int, str, Converter[Any]]]
    lists: Sequence[tuple[int, str, Converter[Any]]]
    byte_strings: Sequence[str]
    has_lists: bool

    def generated_of(self, found: Message, max_listed: int) -> Steps[Generated]:
        """Return, in steps, the generated message of one of the runtime's.

        Raises:
            TooManyListed: there are more messages than that in its lists, and in those of messages inside of it.
        """
        if not self.has_lists:
            return self._at_once(found)
        return (yield from self._in_steps(found, ListBudget(max_listed)))

    def _in_steps(self, found: Message, budget: ListBudget) -> Steps[Generated]:
        if not self.has_lists:
            return self._at_once(found)
        values = self._values(found)
        for place, name, converter in self.messages:
            values[place] = (yield from converter._in_steps(values[place], budget)) if found.HasField(name) else None  # noqa: SLF001 - its own class
        for place, _, converter in self.lists:
            values[place] = (yield from converter._list(values[place], budget)) if values[place] else []  # noqa: SLF001 - its own class
        return self.generated(*values)

    def _list(self, found: Any, budget: ListBudget) -> Steps[list[Generated]]:  # noqa: ANN401 - the runtime's lists have no common type
        budget.spend(len(found))
        converted: list[Generated] = []
        for start in range(0, len(found), MESSAGES_AT_ONCE):
            piece = found[start : start + MESSAGES_AT_ONCE]
            if self.has_lists:
                for each in piece:
                    converted.append((yield from self._in_steps(each, budget)))  # noqa: PERF401 - no comprehension can yield
            else:
                # A generator for each would cost as much as the conversion does.
                converted += map(self._at_once, piece)
            yield
        return converted

    def _at_once(self, found: Message) -> Generated:
        """Return the generated message of one that has no lists of messages."""
        values = self._values(found)
        for place, name, converter in self.messages:
            values[place] = converter._at_once(values[place]) if found.HasField(name) else None  # noqa: SLF001 - its own class
        return self.generated(*values)

    def _values(self, found: Message) -> list[Any]:
        """Return the values of all fields in their places; messages are the runtime's still."""
        values = [getattr(found, name) for name in self.names]
        for place, convert in self.changed:
            values[place] = convert(values[place])
        for place, name in self.optional:
            if not found.HasField(name):
                values[place] = None
        return values

    def fields_of(self, message: Generated) -> dict[str, Any]:
        """Return the fields of a message as the constructor of the runtime's class has them."""
        fields = vars(message).copy()
        del fields["_unknown_fields"]  # always empty: they are passed over in reading
        for _, name, converter in self.messages:
            if fields[name] is not None:
                fields[name] = converter.fields_of(fields[name])
        for _, name, converter in self.lists:
            fields[name] = [converter.fields_of(each) for each in fields[name]]
        return fields


@functools.cache
def converter_of(generated: type[Generated]) -> Converter[Generated]:
    """Return the converter of a generated class, made from what the class says of its fields."""
    hints = typing.get_type_hints(generated)
    names: list[str] = []
    changed: list[tuple[int, Callable[[Any], Any]]] = []
    optional: list[tuple[int, str]] = []
    messages: list[tuple[int, str, Converter[Any]]] = []
    lists: list[tuple[int, str, Converter[Any]]] = []
    byte_strings: list[str] = []
    for place, each in enumerate(dataclasses.fields(generated)):  # type: ignore[arg-type]  # generated ones are dataclasses
        name, meta = each.name, FieldMetadata.get(each)
        names.append(name)
        # Of "list[Skipped]", "bytes | None", "Member".
        kind = (typing.get_args(hints[name]) or (hints[name],))[0]
        if meta.proto_type == betterproto2.TYPE_MESSAGE:
            (lists if meta.repeated else messages).append((place, name, converter_of(kind)))
        elif meta.repeated or meta.proto_type == betterproto2.TYPE_MAP:
            changed.append((place, list if meta.repeated else dict))
        elif meta.proto_type == betterproto2.TYPE_ENUM:
            # A number that is not known becomes a member without a name.
            changed.append((place, kind))
        elif meta.proto_type == betterproto2.TYPE_BYTES:
            byte_strings.append(name)
        if meta.group:
            optional.append((place, name))
    has_lists = bool(lists) or any(inner.has_lists for *_, inner in messages)
    runtime = message_class(generated.__name__)
    return Converter(generated, runtime, names, changed, optional, messages, lists, byte_strings, has_lists)
