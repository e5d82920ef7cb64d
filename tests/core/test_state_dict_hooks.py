"""Hooks and extra state of state_dicts, against PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from funcnets import nn
from funcnets.errors import StateDictError
from tests.core.test_state_dict import GOOD, as_torch, build, changed
from tests.core.toys import Affine, Chain, Counter


class TestHooks:
    """The same hooks in both libraries leave the same log."""

    def run(self, scenario):
        logs = []
        for lib in (torch.nn, nn):
            log = []
            scenario(lib, build(lib), log)
            logs.append(log)
        return logs

    def test_state_dict_hooks(self):
        def scenario(lib, model, log):
            model.b.c.register_state_dict_pre_hook(
                lambda m, prefix, keep: log.append(("pre", prefix, keep))
            )
            handle = model.a.register_state_dict_post_hook(
                lambda m, sd, prefix, meta: log.append((list(sd), prefix, dict(meta)))
            )
            model.register_state_dict_post_hook(
                lambda m, sd, prefix, meta: sd.pop("a.mean") is None
            )
            model.register_state_dict_post_hook(lambda m, sd, prefix, meta: log.append(list(sd)))
            try:
                model.state_dict()
            except RuntimeError:
                log.append("refused")
            handle.remove()

        theirs, ours = self.run(scenario)
        assert ours == theirs and theirs[-1] == "refused"

    def test_load_hooks_and_their_order(self):
        def scenario(lib, model, log):
            for name, module in model.named_modules():
                module.register_load_state_dict_pre_hook(
                    lambda m, sd, prefix, meta, strict, *lists, name=name: log.append(
                        (
                            "pre",
                            name,
                            sorted(sd),
                            prefix,
                            dict(meta),
                            strict,
                            [list(x) for x in lists],
                        )
                    )
                )
                module.register_load_state_dict_post_hook(
                    lambda m, keys, name=name: log.append(("post", name, *map(list, keys)))
                )
            given = changed(a__mean=None, extra=np.ones(1))
            given = {k: as_torch(v) for k, v in given.items()} if lib is torch.nn else given
            log.append(repr(model.load_state_dict(given, strict=False)))

        theirs, ours = self.run(scenario)
        assert ours == theirs

    def test_a_pre_hook_renames_for_everything_below_it(self):
        """Also from the middle of the tree."""

        def scenario(lib, model, log):
            def rename(m, sd, prefix, *rest):
                for key in list(sd):
                    if key.startswith(f"{prefix}c.wait"):
                        sd[f"{prefix}c.weight"] = sd.pop(key)

            model.b.register_load_state_dict_pre_hook(rename)
            given = changed(b__c__weight=None, b__c__wait=GOOD["b.c.weight"])
            given = {k: as_torch(v) for k, v in given.items()} if lib is torch.nn else given
            keys = sorted(given)
            log.append(repr(model.load_state_dict(given, strict=False)))
            log.append(sorted(given) == keys)  # the caller's dict is untouched
            log.append(float(model.b.c.weight.detach().sum()))

        theirs, ours = self.run(scenario)
        assert ours == theirs and ours[1:] == [True, 30.0]

    def test_a_post_hook_forgives(self):
        model = build(nn)
        model.register_load_state_dict_post_hook(lambda m, keys: keys.missing_keys.clear())
        assert (
            repr(model.load_state_dict(changed(a__mean=None))) == "<All keys matched successfully>"
        )
        model.register_load_state_dict_post_hook(lambda m, keys: keys)
        with pytest.raises(StateDictError, match="post-hook must return None"):
            model.load_state_dict(GOOD)

    def test_an_overridden_load_from_state_dict(self):
        class Renames(Counter):
            _version = 2

            def _load_from_state_dict(self, state_dict, prefix, local_metadata, *rest):
                if local_metadata.get("version", 1) < 2:
                    state_dict[prefix + "count"] = state_dict.pop(prefix + "steps")
                super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)

        model = Chain(Renames())
        model.load_state_dict({"0.steps": np.int32(4)})
        assert model[0].count.item() == 4
        assert model.state_dict()._metadata["0"]["version"] == 2
        model.load_state_dict(model.state_dict())


class Remembers(nn.Module):
    """Has extra state."""

    def __init__(self, words="", fails=False):
        super().__init__()
        self.words, self.fails = words, fails
        self.weight = nn.Parameter((1,))

    def get_extra_state(self):
        return {"words": self.words}

    def set_extra_state(self, state):
        if self.fails:
            raise ValueError("cannot read this")
        self.words = state["words"]


class TestExtraState:
    def test_it_is_saved_and_loaded(self):
        model = Chain(Remembers("hello"))
        saved = model.state_dict()
        assert list(saved) == ["0.weight", "0._extra_state"]
        other = Chain(Remembers())
        other.load_state_dict(saved)
        assert other[0].words == "hello"

    def test_it_can_be_missing(self):
        with pytest.raises(
            StateDictError, match=r'Missing key\(s\) in state_dict: "0\._extra_state"\. $'
        ):
            Chain(Remembers()).load_state_dict({"0.weight": np.ones(1)})
        keys = Chain(Remembers("kept")).load_state_dict({"0.weight": np.ones(1)}, strict=False)
        assert keys.missing_keys == ["0._extra_state"]

    def test_it_can_be_unexpected(self):
        with pytest.raises(
            StateDictError, match='Unexpected key.s. in state_dict: "0._extra_state"'
        ):
            Chain(Affine(1, 1, bias=False)).load_state_dict(Chain(Remembers()).state_dict())

    def test_it_is_not_set_when_something_else_does_not_fit(self):
        model = Chain(Remembers("old"))
        with pytest.raises(StateDictError, match="size mismatch"):
            model.load_state_dict({"0.weight": np.ones(2), "0._extra_state": {"words": "new"}})
        assert model[0].words == "old"

    def test_if_setting_it_fails_no_array_has_changed(self):
        model = Chain(Affine(1, 1), Remembers(fails=True))
        before = {k: np.array(v) for k, v in model.state_dict().items() if "extra" not in k}
        given = {k: v + 1 for k, v in before.items()} | {"1._extra_state": {"words": "x"}}
        with pytest.raises(ValueError, match="cannot read this"):
            model.load_state_dict(given)
        for name, value in before.items():
            np.testing.assert_array_equal(model.state_dict()[name], value)

    def test_without_it_the_methods_refuse(self):
        with pytest.raises(RuntimeError, match="get_extra_state"):
            nn.Module().get_extra_state()
        with pytest.raises(RuntimeError, match="set_extra_state"):
            nn.Module().set_extra_state(1)
