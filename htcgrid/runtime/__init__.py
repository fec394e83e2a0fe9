"""What stands between an agent and a handler: execution environments and their supervision.

Modules that run inside a worker process (`worker`, `frames`, `shared_memory`, `fork_server_main`, `fork_server_guard`, `descendants`)
import neither pydantic nor `htcgrid.spi`: that would be start-up time of every environment.
"""
