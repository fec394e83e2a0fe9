"""The `local_docker` compute plane: handlers in containers on the Docker Engine of this machine."""

from htcgrid_local_docker.invoker import LocalDockerInvoker

__all__ = ["LocalDockerInvoker"]
