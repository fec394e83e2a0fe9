"""The tables of the config file and their keys."""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ConfigDict, Field, SerializerFunctionWrapHandler, field_validator, model_serializer

from htcgrid import secret_values
from htcgrid.agent.options import AgentOptions
from htcgrid.spi import Function, Keys


class PluginTable(Keys):
    """A table that names a plugin; its other keys are the plugin's own."""

    model_config = ConfigDict(extra="allow")

    plugin: str = Field(max_length=200, description="the name of an installed plugin; `htcgrid plugins` lists them")

    @property
    def options(self) -> dict[str, Any]:
        return {name: secret_values.revealed(value) for name, value in (self.model_extra or {}).items()}

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Without the values: which of the plugin's own keys are secret is not known here."""
        yield "plugin", self.plugin
        yield from ((name, ...) for name in self.model_extra or {})

    @model_serializer(mode="wrap")
    def _without_what_came_from_variables(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A dump may be read by others, and a password is given as a variable so that they cannot read it."""
        known = secret_values.without_concealed(self.model_extra or {})
        return dict(handler(type(self).model_construct(_fields_set={"plugin", *known}, plugin=self.plugin, **known)))


class Settings(Keys):
    """A whole config."""

    plane: str = Field("local", description="which of [planes] to run on")
    function: Function = Field(default_factory=Function, description="the function that runs")
    functions: dict[str, Function] = Field(default_factory=dict, description="more functions for `serve`, by name")
    source: PluginTable | None = Field(None, description="where tasks come from")
    sink: PluginTable | None = Field(None, description="where results go")
    planes: dict[str, PluginTable] = Field(
        default_factory=lambda: {"local": PluginTable(plugin="process")},
        description="where the function can run, by names that you choose",
    )
    agent: AgentOptions = Field(default_factory=AgentOptions, description="how the agent behaves")
    observers: dict[str, PluginTable] = Field(
        default_factory=dict, description="who is told what happens: metrics and the like, by names that you choose"
    )

    @field_validator("observers", mode="before")
    @classmethod
    def _named_as_their_plugins(cls, tables: Any) -> Any:
        if not isinstance(tables, Mapping):
            return tables
        return {
            name: {"plugin": name, **table} if isinstance(table, Mapping) else table for name, table in tables.items()
        }
