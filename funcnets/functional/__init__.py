"""temporary"""

__all__ = []
import importlib, pathlib

for _p in sorted(pathlib.Path(__file__).parent.glob("[a-z]*.py")):
    try:
        _m = importlib.import_module(f"funcnets.functional.{_p.stem}")
    except ImportError as _e:
        print("not yet:", _p.stem, _e)
        continue
    for _n in getattr(_m, "__all__", ()):
        globals()[_n] = getattr(_m, _n)
        __all__.append(_n)
