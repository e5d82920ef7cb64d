"""temporary"""
import importlib, pathlib
from funcnets.core.cell import Buffer, Parameter
from funcnets.core.module import Module
from funcnets.nn import init
for _p in sorted(pathlib.Path(__file__).parent.glob("[a-z]*.py")):
    if _p.stem in ("init", "functional"): continue
    try:
        _m = importlib.import_module(f"funcnets.nn.{_p.stem}")
    except ImportError as _e:
        print("not yet:", _p.stem, _e)
        continue
    for _n in getattr(_m, "__all__", ()):
        globals()[_n] = getattr(_m, _n)
from funcnets.nn import functional
