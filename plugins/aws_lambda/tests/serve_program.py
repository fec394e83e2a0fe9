"""AWS's Invoke API by `htcgrid serve`, as a program."""

import json
import re
import subprocess
import sys
from pathlib import Path

from htcgrid.spi import Function
from program_end import output_at_end


class Server:
    """`htcgrid serve` on a port of its own, until it is stopped."""

    def __init__(self, config: Path) -> None:
        program = Path(sys.executable).with_name("htcgrid")
        command = [str(program), "serve", "--config", str(config), "--port", "0"]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self._process.stderr is not None
        said = self._process.stderr.readline()
        found = re.search(r"http://\S+", said)
        if found is None:
            self._process.kill()
        assert found, said + output_at_end(self._process)[1]
        self.url = found.group()

    def stop(self) -> None:
        self._process.terminate()
        output_at_end(self._process)


def config_of(function: Function, folder: Path) -> Path:
    """A config file that runs this function in processes."""
    settings = "".join(f"{name} = {_toml(value)}\n" for name, value in function.model_dump(mode="json").items())
    planes = '[planes.local]\nplugin = "process"\nworkers = 4\n'
    config = folder / "htcgrid.toml"
    config.write_text(f'plane = "local"\n[function]\n{settings}\n{planes}')
    return config


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {json.dumps(text)}" for name, text in value.items()) + "}"
    return json.dumps(value)
