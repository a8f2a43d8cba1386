"""``python -m proglog_trio``: see `proglog_trio.cli`."""

from typing import NoReturn

from proglog_trio.cli.default_signals import end_as_by_default
from proglog_trio.cli.standard_streams import prepare_standard_streams
from proglog_trio.node.garbage import put_off


def main() -> NoReturn:
    """Run the command that the process's arguments name."""
    prepare_standard_streams()
    end_as_by_default()
    with put_off():
        # late: it takes a while, in which the process may be told to end
        from proglog_trio.cli.app import main as run

    run()


if __name__ == "__main__":
    main()
