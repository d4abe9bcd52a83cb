"""``python -m rxoutflow_server``: the same as the command ``rxoutflow-server``."""

from rxoutflow_server.cli import main

main(prog_name="rxoutflow-server")
