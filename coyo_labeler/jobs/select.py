"""spark-submit entry point of the stage `select`; `--help` lists its keys.

A script's own folder comes first where Python looks for modules. So this file is also what every
script of the folder gets in place of the standard library's `select`, which subprocess and asyncio
import: it then puts that one in its place.
"""

import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path


def _import_the_real_one() -> None:
    """Replace this module in `sys.modules` by the standard library's."""
    here = Path(__file__).resolve().parent
    elsewhere = [path for path in sys.path if Path(path).resolve() != here]
    spec = PathFinder.find_spec("select", elsewhere)
    if spec is None or spec.loader is None:
        raise ImportError("the standard library has no module 'select'")
    sys.modules["select"] = module = module_from_spec(spec)
    spec.loader.exec_module(module)


if __name__ == "select":
    _import_the_real_one()
elif __name__ == "__main__":
    from coyo_labeler.cli import job

    job("select")
