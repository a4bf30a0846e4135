"""Slow one function of eosr down in every Python that is started, so that a run has a middle to be killed in."""

TEXT = """
import functools, importlib.abc, importlib.util, os, sys, time

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "{module}":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module
        def slowed(module):
            execute(module)
            *owners, last = "{function}".split(".")
            owner = functools.reduce(getattr, owners, module)
            plain = getattr(owner, last)
            @functools.wraps(plain)  # dask looks at the arguments
            def slow(*given, **options):
                late, until = time.monotonic() + float(os.environ["SLOW"]), os.environ.get("SLOW_UNTIL")
                while time.monotonic() < late and not (until and os.path.exists(until)):
                    time.sleep(0.05)
                return plain(*given, **options)
            setattr(owner, last, slow)
        spec.loader.exec_module = slowed
        return spec

{first}
if os.environ.get("SLOW") and {when}:
    sys.meta_path.insert(0, Finder())
"""


def sitecustomize(module: str, function: str, *, when: str = "True", first: str = "") -> str:
    """Text of a ``sitecustomize.py``: with SLOW set, each call of the function takes SLOW seconds longer.

    With SLOW_UNTIL too, only until there is a file of that name: a test lets the run go once it has seen enough.

    Parameters
    ----------
    module, function : str
        E.g. ``"eosr.train.data.stream"`` and ``"Stream.batch"``.
    when : str
        Further condition, an expression.
    first : str
        Statements before.
    """
    return TEXT.format(module=module, function=function, when=when, first=first)
