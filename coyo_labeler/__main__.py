"""`python -m coyo_labeler STAGE key=value …`: the command line."""

from coyo_labeler.cli import run

if __name__ == "__main__":
    run()
