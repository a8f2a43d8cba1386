"""``python -m proglog_trio``: see `proglog_trio.cli`."""

from typing import NoReturn

from proglog_trio.cli.default_signals import end_as_by_default
from proglog_trio.cli.standard_streams import prepare_standard_streams


def main() -> NoReturn:
    """Run the command that the process's arguments name."""
    prepare_standard_streams()
    end_as_by_default()
    # late: it takes a while, in which the process may be told to end
    from proglog_trio.cli.app import main as run

    run()


if __name__ == "__main__":
    main()
